"""What a server decides. Nothing here waits, looks at a clock, or touches anything outside the process.

What a client says, and what becomes of it:

- `messages`: IAMAT, WHATSAT and AT
- `framing`: lines out of bytes
- `rules`: the judge of what a client says
- `reply`: what becomes of one command
- `conversation`: one connection of a client
- `slow_reader`: how long a client may not read
- `turn`: in which order everything happens that is ready at one moment
- `engine`: what a turn wants of an engine, and of a client's connection; `turn_ports`: of the log, and of Places
- `early_queries`: queries that came before they can be answered
- `limiters`: how often something is logged
- `buckets`: how much a client may ask

What servers tell one another:

- `table`: the last location of every client
- `evictions`: a table that makes room when it is full
- `tombstones`: what the herd keeps of a client that was erased
- `erasures`: erases clients from the table
- `peer_messages`: the lines between servers
- `handshake`: both sides of a link prove the secret and agree
- `link`: one connection between two servers
- `catchup`: finds out what a neighbour has that this server lacks
- `walks`: the catch-ups of one server, one at a time
- `contact`: which lines are in doubt after a long absence
- `node`: one server's decisions; `decider`: those about its clients' commands
- `news`: what a server passes on, and to whom
- `flood_paths`: which copies of it may wait
- `expiry`: how old entries leave the table
- `changes`: which clients have changed in the table
- `notes`: what has happened that is worth a line in the log

Who is near, and who is inside:

- `area_queries`: what clients ask about areas
- `area_searches`: when they are searched and answered
- `spatial`: the index of a table, and searches of it

Who follows them:

- `follows`: who follows clients and areas, and what they are told

What both use:

- `value`: the base class of values
- `sizes`: how much is done at once
- `ticks`: when time passes
"""
