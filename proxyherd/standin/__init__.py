"""A stand-in for Google: serves both Places APIs from the offline gazetteer, and fails as told.

- `app`: the server
- `old`, `new`: the two APIs
- `shapes`: what answers look like
"""
