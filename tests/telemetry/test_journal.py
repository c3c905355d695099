"""What the log and the metrics say of the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from observed import figures
from scenarios import Scenario, Watched, assert_exactly, line

USE_OUTDATED = "If all were away: stop all servers, set a greater tombstone_seconds, rename the files back on each, and start"


def journal(it: Watched) -> None:
    it.observer.journal.state(100, 2, "no space", takes_reports=False)
    it.observer.settle()
    it.observer.journal.state(150, 3, "no space", takes_reports=False)
    it.observer.journal.state(150, 3, "no file", takes_reports=True)


def journal_whole(it: Watched) -> None:
    for failing in ("", "no space", "", ""):
        it.observer.journal.state(1, 1, failing, takes_reports=False)


SCENARIOS: dict[str, Scenario] = {
    "the journal fails": Scenario(
        journal,
        [
            line("journal_failing", "error", reason="no space", effect="reports are refused"),
            line("journal_failing", "error", reason="no file", effect="reports are taken without a promise"),
        ],
        {
            "proxyherd_journal_bytes_total": 150,
            "proxyherd_journal_failures_total": 3,
            "proxyherd_journal_failing": 1,
        },
    ),
    "the journal is whole again": Scenario(
        journal_whole,
        [
            line("journal_failing", "error", reason="no space", effect="reports are refused"),
            line("journal_whole"),
        ],
        {"proxyherd_journal_bytes_total": 1, "proxyherd_journal_failures_total": 1},
    ),
    "the journal is replayed": Scenario(
        lambda it: it.observer.journal.replayed(3, 2, 1 / 3),
        [line("replayed", lines=3, clients=2, seconds=0.333)],
        {},
    ),
    "the journal lacks records": Scenario(
        lambda it: it.observer.journal.lacks("1.journal is damaged"),
        [
            line(
                "journal_lacks",
                "warning",
                reason="1.journal is damaged",
                effect="queries wait for the first catch-up",
            )
        ],
        {},
    ),
    "the journal is too old": Scenario(
        lambda it: it.observer.journal.outdated("they are older than 26.25 days"),
        [
            line(
                "journal_outdated",
                "error",
                reason="they are older than 26.25 days",
                remedy="none if a server of the herd was up; its files are kept, with the suffix .outdated, until a "
                f"neighbour has shown that it has the table. {USE_OUTDATED}",
            )
        ],
        {},
    ),
    "the files of a journal that is too old stay": Scenario(
        lambda it: it.observer.journal.outdated_kept(2),
        [
            line(
                "journal_outdated_kept",
                "warning",
                files=2,
                reason="no neighbour has told of a report from the time before they were set aside",
                remedy=f"{USE_OUTDATED}. If you need them no more, delete them: erased clients may be in them",
            )
        ],
        {},
    ),
    "lines in doubt are dropped": Scenario(
        lambda it: it.observer.journal.dropped(7, "26.25 days"),
        [
            line(
                "doubtful_dropped",
                "warning",
                lines=7,
                reason="this server was without contact with its herd for more than 26.25 days, so clients may have been "
                "erased that nobody remembers",
                effect="neighbours tell what they have; what this server has taken itself less long ago stays",
            )
        ],
        {},
    ),
    "the journal is torn": Scenario(
        lambda it: it.observer.journal.torn("1.journal", 5, 20),
        [line("journal_torn", "warning", file="1.journal", records=5, cut_bytes=20)],
        {},
    ),
    "the journal is damaged": Scenario(
        lambda it: it.observer.journal.damaged("1.journal", 5, 2),
        [
            line(
                "journal_damaged",
                "error",
                file="1.journal",
                records=5,
                damaged=2,
                remedy="kept as 1.journal.damaged; neighbours have what is missing. Delete it when you have looked at it: erased clients "
                "may be in it",
            )
        ],
        {},
    ),
    "the journal is rewritten": Scenario(
        lambda it: it.observer.journal.rewritten(100, 1 / 3),
        [line("journal_rewritten", bytes=100, seconds=0.333)],
        {},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_a_total_that_goes_back_takes_nothing_away(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for written in (10, 4, 12):
        watched.observer.journal.state(written, 0, "", takes_reports=True)
        watched.observer.settle()
    assert figures(watched.metrics)["proxyherd_journal_bytes_total"] == 12
    watched.end()
