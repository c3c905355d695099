"""Writes proxyherd/base/page/coast.json, the coastline on the maps of our pages, from Natural Earth's land in 1:110 million.

.venv/bin/python docs/make_coast.py        needs npm, which fetches the package world-atlas

Natural Earth is in the public domain. Each ring is simplified (Douglas and Peucker) and written as steps of a tenth of
a degree: the first two numbers are longitude and latitude, all others differences.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "proxyherd/base/page/coast.json"
PACKAGE = "world-atlas@2.0.2"
TOLERANCE = 0.15
"""Degrees by which the line may be off."""

Point = tuple[float, float]


def land(scale: str = "110m") -> dict[str, Any]:
    """Return Natural Earth's land as TopoJSON; `scale`: 110m is 1:110 million, 10m is 1:10 million."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", PACKAGE]
        name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - fixed words
        with tarfile.open(Path(folder, name)) as package:
            file = package.extractfile(f"package/land-{scale}.json")
            assert file is not None
            topology: dict[str, Any] = json.load(file)
            return topology


def rings(topology: dict[str, Any]) -> Iterator[list[Point]]:
    """Yield each ring in degrees: arcs are written as differences, and shared from either end."""
    (width, height), (left, bottom) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs: list[list[Point]] = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for step in arc:
            x, y = x + step[0], y + step[1]
            points.append((x * width + left, y * height + bottom))
        arcs.append(points)
    for geometry in topology["objects"]["land"]["geometries"]:
        for polygon in geometry["arcs"]:
            for ring in polygon:
                points = []
                for number in ring:
                    arc = arcs[number] if number >= 0 else arcs[~number][::-1]
                    points += arc[bool(points) :]
                yield points


def simplified(points: Sequence[Point]) -> list[Point]:
    """Return the points without which a line would be further off than the tolerance."""
    (ax, ay), (bx, by) = points[0], points[-1]
    length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5

    def off(point: Point) -> float:
        if not length:
            return float(((point[0] - ax) ** 2 + (point[1] - ay) ** 2) ** 0.5)
        return float(abs((bx - ax) * (ay - point[1]) - (ax - point[0]) * (by - ay)) / length)

    at = max(range(1, len(points) - 1), key=lambda number: off(points[number]), default=0)
    if not at or off(points[at]) <= TOLERANCE:
        return [points[0], points[-1]]
    return [*simplified(points[: at + 1])[:-1], *simplified(points[at:])]


def unrolled(points: Sequence[Point]) -> list[list[Point]]:
    """Return a ring that may cross the antimeridian as rings that do not jump, but may reach beyond the map: then once
    at either end of it. One around the pole is closed by way of it.
    """
    ring, turn = [points[0]], 0.0
    for (before, _), (x, y) in pairwise(points):
        turn += 360.0 * ((x - before < -180) - (x - before > 180))
        ring.append((x + turn, y))
    if turn:
        ring += [(ring[-1][0], -90.0), (ring[0][0], -90.0)]
    lowest, highest = min(x for x, _ in ring), max(x for x, _ in ring)
    shifts = [0.0, *([360.0] if lowest < -180 else []), *([-360.0] if highest > 180 else [])]
    return [[(x + shift, y) for x, y in ring] for shift in shifts]


def steps(points: Sequence[Point]) -> list[int]:
    """Return tenths of a degree: the first point, and then differences."""
    tenths = [(round(10 * x), round(10 * y)) for x, y in points]
    numbers = [*tenths[0]]
    for (ax, ay), (bx, by) in pairwise(tenths):
        if (ax, ay) != (bx, by):
            numbers += (bx - ax, by - ay)
    return numbers


def main() -> None:
    """Write the file."""
    lines = [steps(simplified(one)) for ring in rings(land()) for one in unrolled(ring)]
    coast = {
        "from": "Made with Natural Earth, naturalearthdata.com, public domain",
        "rings": [line for line in lines if len(line) > 6],
    }
    FILE.write_text(json.dumps(coast, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
