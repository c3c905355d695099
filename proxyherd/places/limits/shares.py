"""Fair shares of a budget: what each asker has spent of one window, and whether it may spend more.

The rule: an asker gets at most a share of what all others have left. With a share of one half, one asker alone may spend
half of a window's calls, two may spend a third each, three a quarter each. So nobody needs to know how many askers there
are, the first ones give way by themselves when more come, and there is always something left for one who comes new.
Switches share their buffers between their ports in this way (dynamic thresholds, by Choudhury and Hahne, 1998).

What an asker has spent is kept in slots of a twelfth of the window. A slot that is only partly in the window counts
whole. Whoever asks again under another name is another asker: addresses and tokens make that expensive.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

SLOTS_OF_A_WINDOW: Final = 12
"""Slots in a window: an asker that is over its share may ask again a twelfth of a window too late, at most."""

MOST_ASKERS: Final = 16_384
"""Askers that are remembered, at some 500 bytes each in a window. Beyond this number, those that have made no call for
longest count as new. Each has made a call, so a budget of fewer calls never has as many.
"""


class Shares:
    """The askers of one window of so many seconds. Times are seconds, integers."""

    def __init__(self, window: int, share: float, most_askers: int = MOST_ASKERS) -> None:
        self._window = window
        self._slot = max(window // SLOTS_OF_A_WINDOW, 1)
        self._share = share
        self._most = most_askers
        self._spent: OrderedDict[str, dict[int, int]] = OrderedDict()  # by slots; the latest call is last

    def __len__(self) -> int:
        return len(self._spent)

    def allows(self, asker: str, now: int, left: int) -> bool:
        """Return whether an asker may make a call, if the window has so many calls left for all."""
        if self._share >= 1:
            return True
        own = self.spent(asker, now)
        return own < self._share * (left + own)

    def spent(self, asker: str, now: int) -> int:
        """Return how many calls an asker has made in the window. One with a time in the future, after the clock was set
        back, is forgotten.
        """
        slots = self._spent.get(asker)
        if slots is None:
            return 0
        first, last = (now - self._window) // self._slot, now // self._slot
        for slot in [slot for slot in slots if not first <= slot <= last]:
            del slots[slot]
        if not slots:
            del self._spent[asker]
        return sum(slots.values())

    def spend(self, asker: str, now: int) -> None:
        """Note a call that an asker makes."""
        slots = self._spent.setdefault(asker, {})
        self._spent.move_to_end(asker)
        slot = now // self._slot
        slots[slot] = slots.get(slot, 0) + 1
        if len(self._spent) > self._most:
            self._spent.popitem(last=False)

    def give_back(self, asker: str, spent: int) -> None:
        """Forget a call of this time that was not made."""
        slots, slot = self._spent.get(asker, {}), spent // self._slot
        if slots.get(slot, 0) > 0:
            slots[slot] -= 1
