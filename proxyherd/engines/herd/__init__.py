"""The engine `herd`: every server has the whole table, a journal of it, and links to its neighbours.

- `engine`: what a turn wants of it
- `journal`: the files
- `mark`: whether they may lack records
- `durability`: keeps them replayed, synced, short and whole
- `peers`: the connections to the neighbours
- `neighbour_hosts`: who may be a neighbour, by address
- `backend`: all of it put together, for the daemon
"""
