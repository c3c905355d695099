"""Pseudo-random mutations of inputs: the same for the same seed, and no fuzzer needed.

for data in mutated(inputs, words, count=1_000, seed=1): ...
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

MOST_BYTES = 4_096


def mutated(inputs: Sequence[bytes], words: Sequence[bytes], *, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` inputs, each made from one of `inputs` by a few edits."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(inputs))
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            _edit(data, inputs, words, rng)
        yield bytes(data[:MOST_BYTES])


def _edit(data: bytearray, inputs: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 200)))
    match rng.randrange(7):
        case 0:
            data[at:end] = b""
        case 1:
            data[at:at] = rng.choice(words)
        case 2:
            data[at:end] = rng.choice(words)
        case 3:
            data[at:at] = data[at:end] * rng.choice((1, 2, 40))
        case 4:
            data[at : at + 1] = bytes([rng.randrange(256)])
        case 5:
            other = rng.choice(inputs)
            data[at:end] = other[rng.randint(0, len(other)) :]
        case _:
            data[at : at + 1] = bytes([rng.choice(b'\n\r\t \x0b\x0c\x1c\x00.+-09"[]{}:,=\xff')])
