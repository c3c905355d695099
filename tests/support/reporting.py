"""A client that reports to one server again and again, while something else is done to the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from herd_process import Connection, Meanwhile


class ReportingClient(Meanwhile):
    """Reports over one connection, batch by batch; keeps what was sent and what was answered.

    `batch` makes the next lines, and is told how many were sent before.
    """

    def __init__(
        self, connection: Connection, batch: Callable[[int], Sequence[bytes]], *, pause_seconds: float
    ) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        """Lines that were answered, without LF."""
        self.answers: list[bytes] = []
        """Their AT lines, without LF."""
        self._connection = connection
        self._batch = batch
        self._pause_seconds = pause_seconds

    def work(self) -> None:
        with self._connection as connection:
            while not self.stopping.wait(self._pause_seconds):
                lines = self._batch(len(self.sent))
                connection.send(*lines)
                for line in lines:
                    answer = connection.line()
                    assert answer.startswith(b"AT "), answer
                    assert answer.split()[3] == line.split()[1]
                    self.answers.append(answer[:-1])
                self.sent += lines
