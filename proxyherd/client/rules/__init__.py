"""The rules of a herd's client, without sockets and clocks.

- `errors`: what calls raise
- `settings`: the settings of a client, checked when they are given
- `fields`: the arguments of a call, spelled as operands of a command
- `commands`: a command of one line, and what its answer means
- `pipeline`: many commands on one connection, their answers in order; what is sent again
- `areas`: questions who is in an area, and what their answers mean
- `follows`: what is told of clients that are followed, over connections that break
- `choice`: which server is asked next, and when
"""
