"""Places without Google: a file of the world's cities, or of places of the operator's own.

- `file`: the file, and how it is searched
- `build`: makes it
- `own_places`: what an operator brings
- `feature_types`: what GeoNames calls things, in Google's words
- `offline`: the provider
"""
