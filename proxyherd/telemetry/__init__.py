"""What operators see of a server.

- `logs`: the log file
- `observer`: every event, with its metrics
- `metrics`: the metrics
- `recent`: the latest commands, for the status page
"""
