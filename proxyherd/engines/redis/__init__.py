"""The engine `redis`: the table in a Redis Cluster, and servers without state in front of it.

- `layout`: which key and value a report has, and which tag a client belongs to
- `commands`: how calls are spelled to Redis
- `function.lua`: what Redis does with them
- `batch`: what goes to one master at once
- `shard`: one master, and at most one batch in flight to it
- `opening`: a connection to a master, checked before it is used
- `sealing`: the end of a batch, and what it proves
- `lookout`, `views`: who is master of what, as several nodes say
- `routes`: which master a tag's wishes go to
- `backlog`: how much waits, and when that is too much
- `outcomes`: what came of them, until a turn lets it out
- `engine`: what a turn wants of it all
- `backend`: all of it put together, for the daemon

Three rules make an answer true. A batch ends with a write of its own, the seal, and with WAIT: only what a replica has
acknowledged was done by a master that still is one, so neither a report nor a look-up is believed before. Whatever did
not come back so is done again, on whoever is master then, which changes nothing if it had been done. And what one
connection has asked about one client is done in its order, since a tag's calls go one after another.
"""
