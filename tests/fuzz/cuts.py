"""How a stream is cut into what arrives at once."""

from __future__ import annotations

MOST_CUTS = 40


def cut(stream: bytes, size: int) -> list[bytes]:
    """Cut a stream into pieces of `size` bytes, after so many of them not any more; 0: not at all."""
    if not size:
        return [stream]
    end = min(len(stream), MOST_CUTS * size)
    pieces = [stream[at : at + size] for at in range(0, end, size)]
    return [*pieces, stream[end:]] if end < len(stream) else pieces
