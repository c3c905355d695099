"""The admin port: metrics, health and the status page. It reads what the others tell it.

- `app`: what is served, to whom
- `area_pages`: who is near, and who is followed on the map
- `follow_viewer`: a viewer that follows
- `pace`: how often metrics are made
- `listener`: its connections
- `status_page`: the page, and the whole herd's state behind it
"""
