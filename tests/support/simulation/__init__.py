"""Whole herds in one thread, on a clock that only the simulation turns.

The servers are the real ones: turn, engine, node, table, links, catch-up and the clients' conversations, those of the
web too. What is simulated is around them: the network, the disk, Places, the log, and who uses them. The world is a
seed: a graph, delays, one-way cuts, half-open and doubled connections, stalls, crashes with and without what the disk
had, slow and failing disks, strangers, clocks that are wrong, and clients that report, ask, leave and do not read
meanwhile. A seed reproduces a run exactly. The laws (`laws`) are checked as the herd runs, and when the world has
become whole again.

`check(seed)` runs one; where a law is broken it raises LawBroken with the seed and what happened before.
"""

from simulation.herd import Herd, check, run
from simulation.network import End
from simulation.plan import Plan
from simulation.servers import Server
from simulation.tables import WatchedTable
from simulation.world import EPOCH, LawBroken

__all__ = ["EPOCH", "End", "Herd", "LawBroken", "Plan", "Server", "WatchedTable", "check", "run"]
