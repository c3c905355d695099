"""`proxyherd export`: where every client was last, exactly, as GeoJSON or CSV, from a journal that may be in use."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from one_server import enter_folder, write_journal

from proxyherd import cli
from proxyherd.base.escapes import escaped
from proxyherd.config import secrets
from proxyherd.core import messages, table
from proxyherd.core.messages import NANOSECONDS
from proxyherd.engines.herd import journal
from proxyherd.engines.herd.backend import make_table
from proxyherd.remote import exporting

LINES = [
    b"AT Ann +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503",
    b"AT Ann -7.000000000 plum +05.50+000 9",
    b'AT Bob +0.000000000 a\xff\x1b\xc2\x85,"b" -0.10+180.000 1.5',
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder with a journal of its one server."""
    return enter_folder(tmp_path, monkeypatch, LINES)


def export(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["export", *arguments])


def features(text: str) -> list[dict[str, Any]]:
    """Read GeoJSON strictly, numbers as they are spelled."""
    whole = json.loads(text, parse_float=str, parse_int=str, parse_constant=pytest.fail)
    assert list(whole) == ["type", "features"]
    assert whole["type"] == "FeatureCollection"
    return list(whole["features"])


# Forms. ------------------------------------------------------------------------------------------------------


def test_geojson_has_a_point_for_each_client_with_longitude_first(folder: Path) -> None:
    result = export()
    assert (result.exit_code, result.stderr) == (0, "var/lib/Ann/journal: 3 clients\n")
    strange, kiwi, plum = features(result.stdout)
    assert kiwi == {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": ["-118.445127", "34.068930"]},
        "properties": {
            "client": "kiwi",
            "time": "1621464827.959498503",
            "received_by": "Ann",
            "difference": "+0.263873386",
        },
    }
    assert strange["geometry"]["coordinates"] == ["180.000", "-0.10"]
    assert strange["properties"]["client"] == 'a\\xff\\x1b\\u0085,"b"'
    assert plum["geometry"]["coordinates"] == ["0", "5.50"]


def test_csv_has_a_line_for_each_client_below_the_names(folder: Path) -> None:
    result = export("--format", "csv")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert list(csv.reader(io.StringIO(result.stdout, newline=""), strict=True)) == [
        ["client", "latitude", "longitude", "time", "received_by", "difference"],
        ['a\\xff\\x1b\\u0085,"b"', "-0.10", "180.000", "1.5", "Bob", "+0.000000000"],
        ["kiwi", "34.068930", "-118.445127", "1621464827.959498503", "Ann", "+0.263873386"],
        ["plum", "5.50", "0", "9", "Ann", "-7.000000000"],
    ]


@pytest.mark.parametrize(
    ("form", "text"), [("geojson", '{"type":"FeatureCollection","features":[]}\n'), ("csv", None)]
)
def test_a_herd_without_clients_is_an_empty_file_of_its_form(
    folder: Path, form: str, text: str | None
) -> None:
    write_journal([])
    result = export("--format", form)
    assert result.exit_code == 0
    assert result.stdout == (text or "client,latitude,longitude,time,received_by,difference\n")


@settings(deadline=None)
@given(st.from_regex(r"[+-]0{0,2}[0-9]{1,2}(\.[0-9]{1,20})?", fullmatch=True))
def test_a_number_is_the_clients_own_and_valid_json(spelled: str) -> None:
    number = exporting.number(spelled)
    assert isinstance(json.loads(number), int | float)
    assert float(number) == float(spelled)
    assert spelled.endswith(number.removeprefix("-"))  # digit for digit
    assert number.startswith("-") == spelled.startswith("-")


IDS = st.binary(min_size=1, max_size=9).filter(lambda data: data.split() == [data])


@settings(deadline=None)
@given(st.lists(IDS, unique=True, max_size=9))
def test_any_client_id_comes_out_as_valid_json_and_csv(ids: list[bytes]) -> None:
    entries = {one: messages.Entry(b"AT Ann +0.000000000 %b +1-1 5" % one, 5) for one in ids}
    points = features(b"".join(exporting.lines("geojson", entries)).decode())
    assert [point["properties"]["client"] for point in points] == [escaped(one) for one in sorted(ids)]
    text = b"".join(exporting.lines("csv", entries)).decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert {len(row) for row in rows} == {6}
    assert len(rows) == text.count("\n") == len(ids) + 1


# What is in a journal. ---------------------------------------------------------------------------------------

ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b"]), st.integers(0, 3), st.integers(0, 3), st.sampled_from([b"Ann", b"Bob"])
    ),
    max_size=12,
)


@settings(deadline=None)
@given(ENTRIES, st.integers(0, 12))
def test_what_is_exported_is_what_a_table_would_have_learned(
    updates: list[tuple[bytes, int, int, bytes]], cut: int
) -> None:
    """However it stands in files."""
    lines = [
        b"AT %b +0.000000000 %b +%d+1 %d" % (server, one, where, at) for one, at, where, server in updates
    ]
    learned = table.Table(b"key")
    for line in lines:
        at = messages.parse_at(line)
        assert at is not None
        held = learned.get(at.client)
        if held is None or (at.entry.nanoseconds, at.entry.line) > (held.nanoseconds, held.line):
            learned.put(at.client, at.entry, learned.leaf(at.client))
    found: dict[bytes, messages.Entry] = {}
    with pytest.MonkeyPatch.context() as patch:
        files = {Path("1"): lines[:cut], Path("2"): lines[cut:]}
        patch.setattr(journal, "files", lambda _: list(files))

        def read(path: Path) -> journal.Batches:
            yield files[path]
            return journal.Finding(path, 0, 0, 0, 0)

        patch.setattr(journal, "read", read)
        found = exporting.read(Path(), NANOSECONDS).entries
    assert found == dict(learned)


MOMENTS = st.integers(0, 4)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), MOMENTS, MOMENTS), max_size=9),
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), MOMENTS.filter(bool)), max_size=3),
    st.randoms(use_true_random=False),
)
def test_of_an_erased_client_the_greatest_line_after_its_erasure_is_exported_in_whatever_order_all_stand(
    reports: list[tuple[bytes, int, int]], erasures: list[tuple[bytes, int]], rng: Random
) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        enter_folder(Path(folder), patch, [])
        secrets.create(Path("var/secret"))
        stones = make_table(secrets.read_all(Path("var/secret")))
        ats = [
            messages.parse_at(b"AT Ann %+d.000000000 %b +1+1 %d" % (received - time, client, time))
            for client, time, received in reports
        ]
        lines = [at.entry.line for at in ats if at is not None]
        lines += [stones.tombstone(client, moment * NANOSECONDS).line for client, moment in erasures]
        rng.shuffle(lines)
        write_journal(lines)
        gone = {client: max(m for c, m in erasures if c == client) * NANOSECONDS for client, _ in erasures}
        left = [at for at in ats if at is not None and at.received > gone.get(at.client, -1)]
        wanted = {
            at.client: max((one.entry for one in left if one.client == at.client), key=astuple) for at in left
        }
        result = export()
        assert result.exit_code == 0
        assert {
            one["properties"]["client"]: one["properties"]["difference"] for one in features(result.stdout)
        } == {client.decode(): entry.line.split()[2].decode() for client, entry in wanted.items()}


def astuple(entry: messages.Entry) -> tuple[int, bytes]:
    return entry.nanoseconds, entry.line


def test_damage_is_left_out_and_told_and_a_torn_tail_is_no_damage(folder: Path) -> None:
    path = write_journal(LINES)
    data = path.read_bytes()
    path.write_bytes(data + b"00000000 AT Ann +0.0")
    assert export().exit_code == 0
    path.write_bytes(data.replace(b"kiwi", b"kiwI", 1))
    result = export("--output", "out")
    assert result.exit_code == 1
    assert result.stderr == "var/lib/Ann/journal: 2 clients, 1 records damaged: proxyherd journal verify\n"
    assert len(features(Path("out").read_text())) == 2


def test_what_the_herd_forgets_is_not_exported(folder: Path) -> None:
    now = time.time_ns()
    old, new = (
        b"AT Ann +%d.%09d %b +1+1 5" % (*divmod(received - 5 * 10**9, 10**9), name)
        for name, received in ((b"old", now - 101 * 10**9), (b"new", now - 10 * 10**9))
    )
    write_journal([old, new])
    assert len(features(export().stdout)) == 2
    with Path("deploy/herd.toml").open("a") as file:
        file.write("[limits]\nmax_age_seconds = 100\n")
    assert [one["properties"]["client"] for one in features(export().stdout)] == ["new"]


def test_a_folder_that_is_no_journal_is_an_error_that_says_what_to_do(folder: Path) -> None:
    for arguments in (["--folder", "nowhere"], ["--folder", "deploy/herd.toml/x"]):
        result = export(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert arguments[1] in result.stderr
    assert export("--server", "Bob").exit_code == 2
    assert export("--server", "Ann", "--folder", "x").exit_code == 2
    assert len(features(export("--folder", "var/lib/Ann/journal").stdout)) == 3


def test_files_that_a_rewrite_takes_away_meanwhile_are_read_in_their_snapshot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = write_journal(LINES[:1]), write_journal(LINES[1:2], 2)
    read = journal.read

    def reading(path: Path) -> journal.Batches:
        if path == second and second.exists():
            first.unlink()
            second.unlink()
            write_journal(LINES, 3, "snapshot")
        return read(path)

    monkeypatch.setattr(journal, "read", reading)
    assert len(features(export().stdout)) == 3


# The file. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_file_is_for_its_owner_and_group_whatever_the_umask(folder: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        assert export("--output", "out").exit_code == 0
    finally:
        os.umask(old)
    assert Path("out").stat().st_mode & 0o777 == 0o640


def test_the_file_is_replaced_only_by_a_whole_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").write_text("before")
    lines = exporting.lines

    def failing(*arguments: Any) -> Any:
        yield next(lines(*arguments))
        assert Path("out").read_text() == "before"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "lines", failing)
    result = export("--output", "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "out: No space left on device; " in result.stderr
    assert Path("out").read_text() == "before"
    assert sorted(path.name for path in folder.iterdir()) == ["deploy", "out", "var"]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert export("--output", "out").exit_code == 0
    assert len(features(Path("out").read_text())) == 3
    assert export("--output", "nowhere/out").exit_code == 2
