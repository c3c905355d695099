"""Places without Google: a file of the world's cities, or of places of the operator's own.

- `file`: the file, and how it is searched
- `build`: makes the file
- `own_places`: the operator's places
- `feature_types`: GeoNames' and OpenStreetMap's kinds of places, as Google's types
- `offline`: the provider
"""
