"""Places without Google: a file of the world's cities, and of places of the operator's own.

- `provider`: answers from the file
- `search`: which places are in a circle, and in which order
- `file`: the file
- `build`: makes the file
- `geonames`: where GeoNames' data comes from
- `own_places`: the operator's places
- `feature_types`: GeoNames' and OpenStreetMap's kinds of places, as Google's types
"""
