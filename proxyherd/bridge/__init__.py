"""Moving from the engine `herd` to `redis` and back, while both take reports: the bridge.

To its neighbours, it is a server of the herd, in the place of one of them. It writes what it learns from them to the
cluster. It also reads the whole cluster, in pass after pass, and sends what is greater there to its neighbours. On
both sides, the greater line in the total order stays. So both end with the same table, however often a line is sent,
and the bridge need not remember anything: after a kill it begins again.

- `outbox`: clients that are not yet written to the cluster
- `member`: the bridge as a server of the herd
- `masters`: the masters of the cluster, and what is written to them
- `passes`: reads everything that they hold
- `inventory`: reads once what a cluster holds, for `forget`
- `bridge`: both together, and when they are in step
"""
