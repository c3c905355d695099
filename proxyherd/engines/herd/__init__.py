"""The engine `herd`: every server has the whole table, a journal of it, and links to its neighbours.

- `engine`: what a turn calls
- `open_links`: what leaves over the connections of peers
- `ports`: what the engine needs of the world
- `delays`: when few updates of neighbours are passed on, and written to the journal and the log
- `journal`: the files
- `rewrite`: the snapshot that replaces them
- `retention`: what erasures ask of a journal
- `mark`: says whether the files may lack records
- `durability`: replays, syncs, shortens and mends the journal
- `peers`: the connections to the neighbours
- `neighbour_hosts`: the addresses of neighbours
- `backend`: puts all of it together, for the daemon
"""
