"""Writes proxyherd/web/page/los-angeles.json, the map of Los Angeles on the page with the fence, whose roads the phones of
examples/fence.py use.

.venv/bin/python docs/make_los_angeles.py        needs npm, which fetches the package world-atlas

The coast is Natural Earth's in 1:10 million, which is in the public domain. Roads and places were drawn by hand, from
crossing to crossing: right to some hundred metres, enough to recognise them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from make_coast import Point, land, rings

FILE: Final = Path(__file__).parent.parent / "proxyherd/web/page/los-angeles.json"

WEST, SOUTH, EAST, NORTH = -119.6, 32.6, -117.2, 35.0
"""Degrees. What of the mainland is not in this box is left out."""

INLAND: Final = ((-119.6, 36.0), (-116.0, 36.0), (-116.0, 32.6))
"""Closes the mainland behind its coast."""

STRAND_SOUTH, STRAND_NORTH, STRAND_INLAND = 33.82, 34.04, 0.0035
"""Degrees: the cycle path along the beach, from Redondo to Will Rogers, and how far it is from the water."""

Road = tuple[str, str, str]
"""Kind, name, and the points: latitude and longitude in degrees, less 33 and plus 118."""

ROADS: Final[tuple[Road, ...]] = (
    ("freeway", "405", "1.2950 -.4700 1.1575 -.4690 1.1250 -.4795 1.0870 -.4745 1.0700 -.4650 1.0540 -.4545 1.0310 -.4365 1.0080 -.4140 .9890 -.3985 .9590 -.3700 .9310 -.3690 .9020 -.3700 .8730 -.3530 .8600 -.3090 .8550 -.2860 .8240 -.2450 .8260 -.2080 .8080 -.1680 .8000 -.1100 .7800 -.0890 .7740 -.0640 .7370 .0100 .6880 .1000"),
    ("freeway", "10", "1.0120 -.4940 1.0215 -.4740 1.0280 -.4530 1.0310 -.4365 1.0330 -.4110 1.0355 -.3760 1.0365 -.3330 1.0370 -.3000 1.0375 -.2750 1.0280 -.2380 1.0350 -.2190 1.0560 -.2180 1.0620 -.1690 1.0700 -.0700 1.0690 .0000 1.0730 .1100 1.0700 .2500"),
    ("freeway", "101", "1.1450 -.6400 1.1690 -.6050 1.1720 -.5400 1.1640 -.5000 1.1575 -.4690 1.1530 -.4100 1.1520 -.3760 1.1370 -.3600 1.1180 -.3370 1.1020 -.3200 1.0890 -.3030 1.0770 -.2850 1.0670 -.2600 1.0625 -.2490 1.0560 -.2340 1.0350 -.2190"),
    ("freeway", "5", "1.3200 -.4900 1.2950 -.4700 1.2370 -.4140 1.1870 -.3180 1.1530 -.2840 1.1150 -.2690 1.1000 -.2500 1.0820 -.2250 1.0600 -.2150 1.0350 -.2190 1.0130 -.1690 1.0020 -.1500 .9390 -.0970 .9100 -.0700 .8630 -.0100 .8180 .0820 .7650 .1300"),
    ("freeway", "110", "1.1400 -.1480 1.1290 -.1500 1.1080 -.1850 1.0820 -.2250 1.0625 -.2490 1.0500 -.2620 1.0375 -.2750 1.0180 -.2800 .9890 -.2810 .9280 -.2810 .8720 -.2850 .8550 -.2860 .8100 -.2870 .7470 -.2900"),
    ("freeway", "105", ".9310 -.3970 .9310 -.3690 .9280 -.2810 .9270 -.2190 .9130 -.1790 .9120 -.1050"),
    ("freeway", "710", "1.0620 -.1690 1.0130 -.1690 .9700 -.1720 .9130 -.1790 .8750 -.1900 .8260 -.2080 .7760 -.2090"),
    ("freeway", "91", ".8720 -.2850 .8750 -.1900 .8760 -.1030 .8560 -.0050 .8540 .1100"),
    ("freeway", "605", "1.1300 .0600 1.0690 .0000 1.0320 -.0330 .9390 -.0970 .8760 -.1030 .7800 -.0890"),
    ("freeway", "210", "1.3150 -.4900 1.2600 -.3300 1.2050 -.2050 1.1510 -.1530 1.1450 -.0300 1.1300 .0600 1.1200 .1700"),
    ("freeway", "134", "1.1520 -.3760 1.1530 -.2840 1.1560 -.2400 1.1400 -.2000 1.1510 -.1530"),
    ("freeway", "60", "1.0350 -.2190 1.0330 -.1690 1.0320 -.0330 1.0000 .1400"),
    ("freeway", "1", "1.0340 -.8000 1.0370 -.6900 1.0405 -.5830 1.0400 -.5550 1.0250 -.5150 1.0120 -.4940"),
    ("street", "Wilshire", "1.0150 -.4990 1.0354 -.4770 1.0410 -.4680 1.0540 -.4545 1.0575 -.4480 1.0590 -.4440 1.0640 -.4300 1.0670 -.4120 1.0670 -.4000 1.0650 -.3765 1.0630 -.3610 1.0622 -.3443 1.0618 -.3270 1.0617 -.3090 1.0617 -.2915 1.0580 -.2755 1.0505 -.2590"),
    ("street", "Sunset", "1.0400 -.5540 1.0480 -.5265 1.0570 -.4910 1.0700 -.4650 1.0735 -.4550 1.0785 -.4370 1.0815 -.4135 1.0905 -.3925 1.0950 -.3760 1.0980 -.3615 1.0980 -.3440 1.0980 -.3295 1.0980 -.3090 1.0980 -.2917 1.0880 -.2750 1.0775 -.2600 1.0630 -.2460"),
    ("street", "Santa Monica", "1.0140 -.4975 1.0320 -.4745 1.0390 -.4640 1.0460 -.4490 1.0500 -.4380 1.0600 -.4180 1.0670 -.4120 1.0830 -.3890 1.0880 -.3770 1.0907 -.3615 1.0907 -.3090 1.0907 -.2900"),
    ("street", "Olympic", "1.0250 -.4660 1.0370 -.4365 1.0590 -.4000 1.0590 -.3765 1.0560 -.3443 1.0530 -.3090 1.0480 -.2700 1.0400 -.2530"),
    ("street", "Pico", "1.0080 -.4920 1.0200 -.4690 1.0360 -.4365 1.0390 -.4300 1.0550 -.4000 1.0550 -.3765 1.0480 -.3443 1.0470 -.3090 1.0400 -.2680"),
    ("street", "Venice", ".9860 -.4720 .9970 -.4540 1.0150 -.4200 1.0290 -.3890 1.0360 -.3765 1.0440 -.3310 1.0450 -.3090 1.0390 -.2680"),
    ("street", "Westwood", "1.0640 -.4452 1.0590 -.4440 1.0500 -.4380 1.0390 -.4300 1.0300 -.4230"),
    ("street", "Hilgard", "1.0785 -.4370 1.0640 -.4385"),
    ("street", "Le Conte", "1.0640 -.4385 1.0640 -.4452 1.0640 -.4480"),
    ("street", "Gayley", "1.0640 -.4480 1.0690 -.4530 1.0735 -.4550"),
    ("street", "Sepulveda", "1.0870 -.4765 1.0535 -.4535 1.0360 -.4365 1.0150 -.4200 1.0050 -.4000 .9600 -.3960 .9450 -.3960 .9310 -.3965 .9020 -.3960 .8870 -.3955 .8730 -.3925 .8450 -.3890"),
    ("street", "Lincoln", "1.0200 -.4880 1.0080 -.4800 .9950 -.4560 .9840 -.4440 .9720 -.4300 .9590 -.4180 .9480 -.3960"),
    ("street", "La Cienega", "1.0905 -.3765 1.0355 -.3765 1.0030 -.3700 .9590 -.3705"),
    ("street", "La Brea", "1.1015 -.3440 1.0622 -.3443 1.0330 -.3510 .9900 -.3600"),
    ("street", "Crenshaw", "1.0618 -.3270 1.0330 -.3300 .9890 -.3300 .9300 -.3265 .8730 -.3265"),
    ("street", "Western", "1.1050 -.3090 .9300 -.3090"),
    ("street", "Vermont", "1.1150 -.2917 .9280 -.2915"),
    ("street", "Figueroa", "1.0630 -.2460 1.0505 -.2590 1.0390 -.2680 1.0180 -.2815 .9280 -.2827"),
    ("street", "Hollywood", "1.1016 -.3615 1.1016 -.2917"),
    ("street", "Manchester", ".9590 -.4420 .9590 -.3705 .9600 -.3090 .9600 -.2500"),
)  # fmt: skip

PLACES: Final = (
    *(("UCLA", 34.0700, -118.4440), ("Santa Monica", 34.0220, -118.4860), ("Venice", 33.9900, -118.4590)),
    *(
        ("Beverly Hills", 34.0740, -118.4000),
        ("Hollywood", 34.1000, -118.3300),
        ("Downtown", 34.0450, -118.2510),
    ),
    *(("Culver City", 34.0130, -118.3960), ("LAX", 33.9420, -118.4090), ("Inglewood", 33.9580, -118.3500)),
    *(
        ("Griffith Park", 34.1300, -118.2950),
        ("Pasadena", 34.1470, -118.1400),
        ("Long Beach", 33.7800, -118.1900),
    ),
    *(("Torrance", 33.8350, -118.3400), ("Palos Verdes", 33.7600, -118.3600), ("Malibu", 34.0380, -118.6900)),
    *(("Burbank", 34.1800, -118.3090), ("Sherman Oaks", 34.1500, -118.4490), ("Compton", 33.8950, -118.2200)),
    *(("Santa Monica Bay", 33.9650, -118.5000), ("San Pedro Bay", 33.7350, -118.1500)),
)
"""Name, latitude and longitude of what the map names."""


def coast() -> list[list[Point]]:
    """Return the land as rings: the mainland, which is closed far behind, and the islands that are wholly in the box."""
    found = [
        (ring, [(x, y) for x, y in ring if WEST <= x <= EAST and SOUTH <= y <= NORTH])
        for ring in rings(land("10m"))
    ]
    mainland = max((inside for _, inside in found), key=len)
    islands = [inside for ring, inside in found if inside and len(inside) == len(ring)]
    return [[*mainland, *INLAND], *islands]


def strand(mainland: list[Point]) -> list[Point]:
    """Return the points of the cycle path along the beach, beginning in the south."""
    return [
        (x + STRAND_INLAND, y)
        for x, y in mainland
        if STRAND_SOUTH < y < STRAND_NORTH and -118.55 < x < -118.38
    ]


def road(points: str) -> list[Point]:
    """Return the points of a road: longitude and latitude."""
    numbers = [float(word) for word in points.split()]
    return [(x - 118, y + 33) for y, x in zip(numbers[::2], numbers[1::2], strict=True)]


def flat(points: list[Point]) -> list[float]:
    """Return longitude and latitude of each point in turn, to some ten metres."""
    return [round(number, 4) for point in points for number in point]


def main() -> None:
    """Write the file."""
    rings_of_land = coast()
    roads = [(kind, name, road(points)) for kind, name, points in ROADS]
    roads.append(("path", "The Strand", strand(rings_of_land[0])))
    document = {
        "from": "Coast: made with Natural Earth, naturalearthdata.com, public domain. Roads and places: by hand.",
        "land": [flat(ring) for ring in rings_of_land],
        "roads": [{"kind": kind, "name": name, "points": flat(points)} for kind, name, points in roads],
        "places": [{"name": name, "lat": lat, "lon": lon} for name, lat, lon in PLACES],
    }
    FILE.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
