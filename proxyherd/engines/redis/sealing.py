"""The end of a batch, and whether it proves that the replies before it can be believed.

A batch ends with a write of its own, the seal, and with WAIT. A replica that has acknowledged the seal has everything
that its master has. If a master was replaced, its replicas follow another node, and none acknowledges.
"""

from __future__ import annotations

from typing import Final

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import spell_end

_WAIT_SHARE: Final = 0.8
"""The part of a batch's time in which replicas must acknowledge, so that the reply is still in time."""


class Sealing:
    """The end of batches to one cluster."""

    def __init__(self, settings: RedisSettings) -> None:
        self._replicas = settings.replicas
        self._milliseconds = int(settings.timeout_seconds * _WAIT_SHARE * 1_000)

    def spell(
        self, tag: int, master: Address, *, asking: bool = False, probe: bool = False
    ) -> tuple[bytes, int]:
        """Return the end of a batch with the seal in this tag, and its number of replies. The first one is that of the
        probe, if there is one.
        """
        return spell_end(tag, str(master), self._replicas, self._milliseconds, asking=asking, probe=probe)

    def doubt(self, sealed: object, acknowledged: object) -> str:
        """Return why the last two replies do not prove those before them; empty if they do."""
        for reply in (sealed, acknowledged):
            if isinstance(reply, Exception):
                return f"the end of a batch was refused: {reply}"
        assert isinstance(acknowledged, int)
        if acknowledged >= self._replicas:
            return ""
        return f"{acknowledged} replicas have acknowledged, of {self._replicas} that must"
