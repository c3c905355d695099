"""One server as a process.

- `driver`: runs turns on the event loop
- `places_queries`: queries for places, which turns begin
- `clients`: connections of clients
- `daemon`: puts one server together, and stops it in order
- `credentials`: what a server knows others by, and reads again at SIGHUP
- `backend`: what it wants of an engine
- `process`: the start and the end of a process, for a server and the bridge
- `supervision`: what supervisord and systemd need from a process
"""
