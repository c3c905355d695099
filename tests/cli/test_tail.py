"""The command tail on files: which lines it shows, and what it says of logs that it cannot read."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from tailed import STAMP, enter_folder, line, numbers, tail

from proxyherd.cli.tail import tail as tail_command
from proxyherd.telemetry.event_names import EVENT_NAMES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_folder(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], range(20, 40)),
        (["-n", "2"], range(36, 40)),
        (["--lines", "0"], []),
        (["--lines", "100"], range(40)),
        (["Ann"], range(20, 40, 2)),
        (["--server", "Bob", "-n1"], [39]),
        (["Ann", "--server", "Bob", "-n1"], [38, 39]),
        (["--since", STAMP % 30], range(30, 40)),
        (["--since", STAMP % 30, "-n", "1"], [38, 39]),
        (["--since", STAMP % 40], []),
        (["--since", "2000-01-01"], range(40)),
        (["--level", "warning"], []),
        (["--event", "re*", "-n", "1"], [38, 39]),
    ],
)
def test_the_last_lines_of_each_log_are_merged(folder: Path, arguments: list[str], wanted: list[int]) -> None:
    assert numbers(tail("--json", *arguments)) == list(wanted)


def test_the_last_lines_are_the_last_of_those_that_are_wanted(folder: Path) -> None:
    with (folder / "var/log/Ann.log").open("ab") as log:
        for n in range(100, 104):
            log.write(line(n, "peer_opened", n=n) + b"\n")
        for n in range(200, 300):
            log.write(line(n, n=n) + b"\n")
    assert numbers(tail("--json", "--event", "peer_opened", "-n", "3")) == [101, 102, 103]


def test_since_reads_no_further_back_than_it_must(folder: Path) -> None:
    lines = (folder / "var/log/Ann.log").read_bytes()
    with (folder / "var/log/Ann.log").open("wb") as log:
        log.truncate(1 << 40)  # a hole, which takes no room, and hours to read
        log.seek(0, os.SEEK_END)
        log.write(b"\n" + lines)
    assert numbers(tail("Ann", "--json", "--since", STAMP % 30)) == list(range(30, 40, 2))


def test_a_torn_line_stops_nothing(folder: Path) -> None:
    with (folder / "var/log/Ann.log").open("ab") as log:
        log.write(b'{"torn\x1b[2J\n' + line(50, n=50) + b"\n" + b'{"torn at the end')
    shown = tail("Ann", "-n", "3").stdout.splitlines()
    assert [one[27:].split()[1] for one in shown] == ["malformed", "ready", "malformed"]
    assert shown[0].startswith("?")  # nothing before it says when
    assert "\x1b" not in "".join(shown)


def test_a_log_that_is_missing_is_told_and_the_others_are_shown(folder: Path) -> None:
    (folder / "var/log/Bob.log").unlink()
    result = tail("--json", "-n1")
    assert numbers(result) == [38]
    assert result.stderr == "No log of Bob in var/log\n"
    result = tail("Bob")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no log of Bob; say with --logs where the logs are" in result.stderr


def test_an_unknown_server_is_an_error_that_lists_the_known(folder: Path) -> None:
    result = tail("Cid")
    assert result.exit_code == 2
    assert "no server 'Cid'; it has Ann, Bob" in result.stderr


def test_a_log_that_may_not_be_read_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "var/log/Bob.log").unlink()
    (folder / "var/log/Bob.log").symlink_to("Bob.log")  # root may read all but this
    result = tail()
    assert result.exit_code == 2
    assert "var/log/Bob.log: Too many levels of symbolic links; " in result.stderr


def test_an_unknown_event_is_wrong_usage_that_names_the_nearest_and_those_that_there_are(
    folder: Path,
) -> None:
    result = tail("--event", "peer_open", "--event", "ready")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no event 'peer_open' (did you mean peer_opened?); there are" in result.stderr
    named = set(result.stderr.partition("there are\n")[2].split())
    assert named == {*EVENT_NAMES, "malformed"}
    assert "there is no event 'nosuch*'; there are" in tail("--event", "nosuch*").stderr
    assert tail("--event", "pe*r_opened", "--event", "malformed").exit_code == 0


def test_names_of_events_can_be_completed() -> None:
    [parameter] = [one for one in tail_command.params if one.name == "events"]
    found = parameter.shell_complete(click.Context(tail_command), "peer_o")
    assert [one.value for one in found] == ["peer_opened"]
