"""Which clients have changed in a table, for several readers: each reads when it wants, and gets each change once.

The table notes a change in one dict, whoever reads: so a report costs the same for one reader as for ten, and nothing for
none. What one reader takes out of that dict is put aside for the others. Changes come from the table itself: no way by
which a client may change is missed.
"""

from __future__ import annotations

from proxyherd.core.messages import Entry
from proxyherd.core.table import Table


class ChangeReader:
    """Reads the changes of one table, from now on until it is closed. Its length: how many clients have changed."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._aside: dict[bytes, Entry | None] = {}  # what another reader has taken out of the table
        self._share()  # what has changed before is not for this one
        table.readers.append(self)

    def __len__(self) -> int:
        own, changes = self._aside, self._table.changes
        if not changes or not own:
            return len(own) + len(changes or ())
        return len(own.keys() | changes.keys())

    def __contains__(self, client: bytes) -> bool:
        changes = self._table.changes
        return client in self._aside or (changes is not None and client in changes)

    def take(self) -> dict[bytes, Entry | None]:
        """Return the clients that have changed since the last call, and their entries now; None: there is none any more. The
        dict is the caller's.
        """
        changes = self._share(but=self)
        if not self._aside:
            return changes
        self._aside.update(changes)
        taken, self._aside = self._aside, {}
        return taken

    def close(self) -> None:
        """Read no more. Without a reader, the table notes nothing."""
        self._share()
        self._table.readers.remove(self)
        if not self._table.readers:
            self._table.changes = None

    def put_aside(self, changes: dict[bytes, Entry | None]) -> None:
        """Keep what another reader has taken out of the table."""
        self._aside.update(changes)

    def _share(self, but: ChangeReader | None = None) -> dict[bytes, Entry | None]:
        """Put what the table has noted aside for each reader, but not for this one. Return it."""
        table = self._table
        changes = table.changes
        if changes is None:
            table.changes = {}
        if not changes:
            return {}
        table.changes = {}
        for reader in table.readers:
            if reader is not but:
                reader.put_aside(changes)
        return changes
