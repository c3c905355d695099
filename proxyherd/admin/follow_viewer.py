"""A viewer of the map that follows one client, or all that are in a circle. It is told what clients of the web port are told,
by the same rules: each change at once, and while it does not read, only what is newest.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxyherd.admin.status_page.herd import Viewer
from proxyherd.core.follows.follow import Follow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.follows.follows import Follows
from proxyherd.core.spatial.areas import Area
from proxyherd.web.events import stream_event_of

_COMMENT_SECONDS: Final = 25.0
"""How long a stream may be silent before it gets a comment."""

_COMMENT: Final = b":\n\n"


class FollowViewer(Viewer):
    """Follows these clients, or an area. Call `close` at the end."""

    def __init__(self, follows: Follows, clients: tuple[bytes, ...], area: Area | None) -> None:
        super().__init__(personal=True)
        self._follows = follows
        self._follower = Follower(self)
        self._reads = True  # whether it has read all that was sent
        follows.begin(Follow(self._follower, b"", clients, area))

    def close(self) -> None:
        """Follow nothing any more."""
        self._follower.close()

    def push(self) -> None:
        """Send what has changed, if all before is read. If too much waits, disconnect the viewer."""
        if not self._reads:
            if self._follower.is_too_slow:
                self.end()
        elif events := self._follower.take():
            self._reads = False
            self.send(b"".join(map(stream_event_of, events)))

    def fail(self) -> None:
        """Disconnect the viewer, because work for it has raised an exception."""
        self.end()

    async def read(self) -> bytes:
        """Return what is to be sent next: a comment if nothing happens for long, b"" when the viewer is disconnected."""
        if not self._reads:
            self._reads = True
            self._follows.resume(self._follower)
        try:
            async with asyncio.timeout(_COMMENT_SECONDS):
                return await self.next()
        except TimeoutError:
            return _COMMENT
