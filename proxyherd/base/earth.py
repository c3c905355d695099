"""How large the Earth is."""

from __future__ import annotations

from typing import Final

EARTH_METRES: Final = 6_371_008.8
"""The mean radius of the Earth (IUGG)."""
