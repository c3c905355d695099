"""GPSLogger, whose user writes the query: `id=%AID&lat=%LAT&lon=%LON&timestamp=%TIMESTAMP&acc=%ACC`, or in part.

It repeats what it is not sure about. What was stored before is stale, and that is fine.

https://gpslogger.app/
"""

from __future__ import annotations

from proxyherd.web.trackers.parameters import read_parameters_point
from proxyherd.web.trackers.points import TrackerRequest, TrackPoints


def read_gpslogger(request: TrackerRequest, points: TrackPoints) -> None:
    """Add the location of a request."""
    read_parameters_point(request, points)
