"""Moving from the engine `herd` to `redis` and back, while both take reports: the bridge.

It is a server of the herd to its neighbours, in the place of one of them, and writes to the cluster what it learns from
them. And it reads the whole cluster, pass after pass, and what is greater there is news to its neighbours. What is
greater in the total order replaces what is less on both sides, so both end the same however often a thing is done, and
nothing need be remembered: a bridge that was killed begins anew.

- `outbox`: clients that the cluster is yet to be told of
- `member`: the bridge as a server of the herd
- `masters`: the masters of the cluster, and what is written to them
- `passes`: all that they hold, read
- `bridge`: both together, and when they are in step
"""
