"""Where clients are near: the index of a table, and searches of it.

- `sphere`: distances, and how far a disc reaches along a latitude
- `keys`: points in an order in which near ones are near each other
- `index`: the positions of a table's clients
- `areas`: circles and boxes
- `polygons`: polygons with holes
- `margins`: how far outside of an area a position is
- `crossings`: whether edges cross
- `search`: who is in an area, the nearest first
- `searches`: the searches of a server, and when it keeps an index
"""
