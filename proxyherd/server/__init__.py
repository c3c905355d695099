"""One server as a process.

- `driver`: runs turns on the event loop
- `questions`: queries of Places that turns begin
- `clients`: connections of clients
- `daemon`: puts one server together, and ends it in order
- `process`: how a server and the bridge begin and end as processes
- `supervision`: what supervisord and systemd want of a process
"""
