"""The end of a batch, and whether it proves that the replies before it are true.

A batch ends with a write of its own, the seal, and with WAIT: a replica that has acknowledged the seal has all that its
master knew, and a master whose replicas follow another one has none that would.
"""

from __future__ import annotations

from typing import Final

from proxyherd.config.herd_file import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import spell_end

_WAIT_SHARE: Final = 0.8
"""Of a batch's time, what may pass until replicas have acknowledged: the reply must still be in time."""


class Sealing:
    """How batches to one cluster end."""

    def __init__(self, settings: RedisSettings) -> None:
        self._replicas = settings.replicas
        self._milliseconds = int(settings.timeout_seconds * _WAIT_SHARE * 1_000)

    def spell(
        self, tag: int, master: Address, *, asking: bool = False, probe: bool = False
    ) -> tuple[bytes, int]:
        """Return the end of a batch, with the seal in this tag, and how many replies there are to it. The first is to
        the probe, where there is one.
        """
        return spell_end(tag, str(master), self._replicas, self._milliseconds, asking=asking, probe=probe)

    def doubt(self, sealed: object, acknowledged: object) -> str:
        """Return why the last two replies do not prove those before them, empty where they do."""
        for reply in (sealed, acknowledged):
            if isinstance(reply, Exception):
                return f"the end of a batch was refused: {reply}"
        assert isinstance(acknowledged, int)
        if acknowledged >= self._replicas:
            return ""
        return f"{acknowledged} replicas have acknowledged, of {self._replicas} that must"
