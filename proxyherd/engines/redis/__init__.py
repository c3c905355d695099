"""The engine `redis`: the table in a Redis Cluster, and servers without state in front of it.

- `layout`: the key and value of a report, and the tag of a client
- `commands`: calls in Redis' protocol
- `function.lua`: what Redis executes
- `batch`: what is sent to one master at once
- `shard`: one master, with at most one batch under way
- `opening`: a connection to a master, checked before it is used
- `sealing`: the end of a batch, and what it proves
- `lookout`, `views`: the masters, as several nodes report them
- `routes`: the master that gets the commands of a tag
- `backlog`: how much waits, and when that is too much
- `outcomes`: the results, until a turn sends the answers
- `revocations`: whose tokens were revoked
- `engine`: what a turn needs of all this
- `backend`: all of it put together, for the daemon

Three rules make answers correct. 1. A batch ends with a write of its own, the seal, and with WAIT. If a replica has
acknowledged the seal, the master is still a master; before that, neither reports nor look-ups are believed. 2.
Everything else is repeated, on the node that is master then; repeating a command that was executed changes nothing. 3.
Commands of one connection about one client are executed in order, because a tag's calls follow one another.
"""
