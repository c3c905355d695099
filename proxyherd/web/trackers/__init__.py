"""Apps on phones that report locations, as they are: OwnTracks, Traccar Client (OsmAnd), GPSLogger, Overland.

Such an app repeats what was refused, for ever, and sends nothing else meanwhile. So a payload that cannot be used is
consumed: it is answered like any other one, and counted by its reason.

- `points`: what becomes a report, and why the rest does not
- `parameters`: points in a query or a form
- `owntracks`, `osmand`, `gpslogger`, `overland`: a file for each app
- `apps`: all apps
"""
