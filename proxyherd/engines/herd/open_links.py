"""The connections of peers, and what leaves over them."""

from __future__ import annotations

from proxyherd.core.link import CLOSED, Link
from proxyherd.core.node import Node
from proxyherd.engines.herd.ports import Later, Peer


class OpenLinks:
    """The connections of one server's peers, in the order in which they came."""

    def __init__(self, node: Node, later: Later | None) -> None:
        self._node = node
        self._later = later
        self._peers: dict[Peer, None] = {}

    def add(self, peer: Peer) -> None:
        """Add a connection."""
        self._peers[peer] = None

    def remove(self, peer: Peer) -> None:
        """Forget a connection that is gone."""
        self._peers.pop(peer, None)

    def release(self, now: float) -> None:
        """Let the links send what they have to send, or end. Spare copies go along, or wait for company."""
        waits = False
        for peer in tuple(self._peers):
            link = peer.link
            if link.spare:
                if link.out or link.is_quiet(now):
                    self._node.send_spare(link)
                else:
                    waits = True
            if link.out or link.state is CLOSED:
                try:
                    peer.release(now)
                except Exception as error:  # noqa: BLE001 - the other neighbours are told
                    peer.fail(error)
        if waits and self._later is not None:
            self._later.send_spare_later()

    def send_spare(self) -> None:
        """Let no spare copy wait any more: the next `release` sends them."""
        for peer in self._peers:
            if peer.link.spare:
                self._node.send_spare(peer.link)

    def failed(self, link: Link, error: Exception) -> None:
        """End the connection of a link: work for it has raised an exception."""
        for peer in tuple(self._peers):
            if peer.link is link:
                peer.fail(error)
