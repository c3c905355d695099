"""Apps on phones that report locations, as they are: OwnTracks, Traccar Client (OsmAnd), GPSLogger, Overland.

Such an app repeats what was refused, for ever, and sends nothing else meanwhile. So a payload that cannot be used is
consumed: it is answered like any other one, and counted by its reason. That holds for damaged packing, unknown encodings,
and what is too large when it is unpacked. Refused are only requests that are too large as they arrive, which no app sends
and the server does not read on; and what a later repetition can cure, or the owner of the app must correct.

- `points`: what becomes a report, and why the rest does not
- `parameters`: points in a query or a form
- `owntracks`, `osmand`, `gpslogger`, `overland`: a file for each app
- `apps`: all apps
"""
