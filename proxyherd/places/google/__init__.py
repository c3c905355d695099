"""Google's two APIs.

- `old`: Nearby Search of the Places API
- `new`: Nearby Search of the Places API (New)
- `auto`: which of both a key is for
- `calling`: HTTP, within the budget
"""
