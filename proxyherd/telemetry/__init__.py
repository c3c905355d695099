"""What operators see of a server.

- `observer`: all subjects below, for the code that knows what happened
- `table`, `follows`, `commands`, `connections`, `web`, `erasures`, `links`, `expiry`, `places`, `journal`, `cluster`, `process`: a subject each,
  with its events, its metrics and the values of their labels. A new metric is a line there, and a call from the code that knows
- `frequent`: the events that come with nearly every command, and their lines
- `event_limits`: how often an event may be logged; `event_names`: the names of all events
- `metrics`: the registry, and how metrics are made
- `logs`: the log file
- `recent`: the latest commands, for the status page
"""
