"""What strangers chose is shown so that nothing of it is hidden, and so that two texts look alike only if they are."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxyherd import cli
from proxyherd.admin.status_page import state
from proxyherd.base import escapes
from proxyherd.base.escapes import escaped, escaped_for_json, quoted, visible, visible_for_json, visible_json
from proxyherd.core import messages
from proxyherd.core.reply import Reply
from proxyherd.engines.herd import journal
from proxyherd.remote import exporting
from proxyherd.telemetry.recent import Recent

ACTIVE = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad"),  # no width
    *("\u200e", "\u200f", "\u061c"),  # marks of a direction
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),  # embeddings, overrides, isolates
    *("\u2028", "\u2029", "\u0085"),  # ends of lines and paragraphs
    *("\u00a0", "\u2000", "\u202f", "\u3000"),  # white space that is no space
    *(
        "\u3164",
        "\uffa0",
        "\u115f",
        "\u2800",
        "\u034f",
        "\ufe0f",
        "\U000e0100",
    ),  # printable, and show nothing
    *("\ud800", "\udfff", "\U000e0001", "\ue000", "\ufdd0"),  # surrogates, tags, private use, no characters
]

TEXTS = st.text(st.characters() | st.sampled_from([*ACTIVE, "\\", "x", "u", '"', "n"]))
BYTES = st.binary() | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))


def test_characters_are_spelled_as_the_page_of_the_rules_says() -> None:
    spelled = {
        "\t\n\r": r"\t\n\r",
        "\x00\x1b\x7f": r"\x00\x1b\x7f",
        "\udc80\udcff": r"\x80\xff",
        "\x80\u200e\uffff": r"\u0080\u200e\uffff",
        "\U000e0001\U0010ffff": r"\U000e0001\U0010ffff",
        "\\": r"\\",
        "d~é\U00010000": "d~é\U00010000",
    }
    for text, shown in spelled.items():
        assert escaped(text.encode("utf-8", "surrogateescape")) == shown


def unescaped(text: str) -> bytes:
    """Return the bytes whose escaped form this is."""

    def plain(match: re.Match[str]) -> str:
        one = match[1]
        if one[0] in "xuU":
            code = int(one[1:], 16)
            return chr(code + 0xDC00 if one[0] == "x" and code >= 0x80 else code)
        return {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[one]

    found = re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[tnr\\])", plain, text)
    return found.encode("utf-8", "surrogateescape")


def is_shown(text: str) -> bool:
    return text.isprintable() and not any(one in text for one in ACTIVE)


# The one way to escape. ----------------------------------------------------------------------------------------


@given(BYTES)
@example(b"\\xff \\\\x1b \x1b\xff\xc2\x85\\n\n")
def test_every_escape_can_be_told_from_the_text_that_looks_like_it(data: bytes) -> None:
    assert unescaped(escaped(data)) == data
    assert unescaped(quoted(data)[1:-1].replace('\\"', '"')) == data
    in_json = json.loads(json.dumps(escaped_for_json(data)))
    assert visible(in_json) == escaped(data)


@given(BYTES, TEXTS)
def test_nothing_that_is_shown_is_hidden(data: bytes, text: str) -> None:
    for one in (escaped(data), escaped(text), quoted(data), visible(text)):
        assert is_shown(one)
        assert visible(one) == one
    for one in (escaped_for_json(data), visible_for_json(text)):
        assert is_shown("".join(character for character in one if character >= " "))
        one.encode()


@pytest.mark.parametrize("character", ACTIVE, ids=ascii)
def test_every_active_character_is_escaped(character: str) -> None:
    for shown in (escaped(character), visible(character), quoted(character)[1:-1]):
        assert re.fullmatch(r"\\(x..|u....|U.{8}|[tnr])", shown)


def test_every_character_of_unicode_is_shown_as_itself_or_as_its_number() -> None:
    # Of most planes, in which nothing is assigned, a few.
    for code in (*range(0x20000), *range(0x20000, sys.maxunicode + 1, 251), *range(0xE0000, 0xE0200)):
        shown = escaped(chr(code))
        if shown == chr(code):
            assert unicodedata.category(shown)[0] in "LMNPS" or shown == " "
        elif shown not in ("\\t", "\\n", "\\r", "\\\\"):
            if code < 0x80:
                assert shown == f"\\x{code:02x}"
            elif 0xDC80 <= code < 0xDD00:  # stands for a byte that is not UTF-8
                assert shown == f"\\x{code - 0xDC00:02x}"
            else:
                assert shown == (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def test_in_json_every_character_is_shown_as_itself_or_as_json_spells_its_number() -> None:
    for code in (*range(0x3100), *range(0xD700, 0xE100), *range(0xFE00, 0x10200), *range(0xE0000, 0xE0200)):
        character = chr(code)
        shown = visible_json(f'["{character}"]')[2:-2]
        if 0xDC80 <= code < 0xDD00:
            assert shown == f"\\x{code - 0xDC00:02x}"
        elif shown != character:
            assert json.loads(f'"{shown}"') == character
            assert re.fullmatch(r"(\\u[0-9a-f]{4}){1,2}", shown)
        else:
            assert character.isprintable() or character in "\t\n"


def test_for_a_writer_of_json_control_characters_stay_as_they_are() -> None:
    """It escapes them by itself, and a backslash of ours would be doubled."""
    for code in range(0x20):
        text = "é" + chr(code)
        assert escaped_for_json(text.encode()) == visible_for_json(text) == text
    assert escaped_for_json("é\x7f".encode()) == visible_for_json("é\x7f") == "é\\x7f"


def test_what_is_plain_stays_as_it_is() -> None:
    for text in ("kiwi.cs.ucla.edu", "größe 北京 a=b 'c' \"d\""):
        assert (
            escaped(text)
            == escaped(text.encode())
            == visible(text)
            == escaped_for_json(text.encode())
            == text
        )


def test_a_stranger_cannot_fill_the_table_of_escapes() -> None:
    sizes = [len(table) for table in (escapes._ESCAPED, escapes._JSON)]
    everything = "".join(map(chr, range(0x100, 0x11000)))
    escaped(everything)
    visible_json(everything)
    assert [len(table) for table in (escapes._ESCAPED, escapes._JSON)] == sizes


@given(
    st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
)
def test_a_document_of_json_keeps_its_meaning(value: object) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=1)
    shown = visible_json(document)
    assert is_shown(shown.replace("\n", ""))
    if not re.search("[\ud800-\udfff]", document):  # which UTF-8 has not, and so no document of ours
        assert json.loads(shown) == value


def test_a_byte_that_json_cannot_hold_is_no_json_when_it_is_shown() -> None:
    assert visible_json(b'["\xff\r\n"]\r\n') == '["\\xff\n"]\n'
    assert visible_json(b'["\x1b\r"]') == '["\\u001b\\u000d"]'


# Where it is shown. --------------------------------------------------------------------------------------------

NASTY = "\x1b]0;title\x07 \x9b31m \u202egnp \u200e\u200f\u061c \u2066 \u200b \u2028 \\x1b".replace(
    " ", ""
).encode()


def at(client: bytes) -> bytes:
    return b"AT Ann +0.000000000 %b +1-1 5" % client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "000000000001.segment").write_bytes(journal.record(at(NASTY)) + journal.record(at(b"a\xff")))
    return tmp_path


def test_a_journal_is_dumped_so_that_nothing_is_hidden_and_raw_on_request(folder: Path) -> None:
    run = CliRunner().invoke
    shown = run(cli.main, ["journal", "dump", "--folder", "."])
    assert shown.exit_code == 0
    first, second = shown.stdout.splitlines()
    assert is_shown(first)
    assert (unescaped(first), second) == (at(NASTY), "AT Ann +0.000000000 a\\xff +1-1 5")
    raw = run(cli.main, ["journal", "dump", "--folder", ".", "--raw"])
    assert raw.stdout_bytes == at(NASTY) + b"\n" + at(b"a\xff") + b"\n"


def rows(client: bytes) -> list[str]:
    """Return the cells of the client's line in an export."""
    entries = {client: messages.Entry(at(client), 5)}
    text = b"".join(exporting.lines("csv", entries)).decode()
    _, row = csv.reader(io.StringIO(text, newline=""), strict=True)
    return row


@pytest.mark.parametrize("first", "=+-@＝＋－＠\t\r".strip("\t\r"))
def test_a_spreadsheet_finds_no_formula_in_an_export(first: str) -> None:
    [cell, *others] = rows(f'{first}HYPERLINK("http://a.b","c");=1'.encode())
    assert (
        cell
        == f'\\{ascii(first)[2:-1] if first > "~" else f"x{ord(first):02x}"}HYPERLINK("http://a.b","c")\\x3b=1'
    )
    assert others == ["1", "-1", "5", "Ann", "+0.000000000"]


@settings(deadline=None)
@given(BYTES.map(lambda data: b"".join(data.split())).filter(bool))
@example(b"\\x3d1")
@example(b"=1")
def test_an_exported_client_can_be_told_from_all_others(client: bytes) -> None:
    cell = rows(client)[0]
    assert is_shown(cell)
    assert cell[0] not in "=+-@＝＋－＠"
    assert unescaped(cell) == client


def test_what_the_status_page_is_told_hides_nothing_and_other_servers_cannot_hide_either() -> None:
    recent = Recent()
    recent.wanted = True
    recent.command(NASTY, Reply("invalid", "invalid", b"? " + NASTY))
    [command] = recent.commands(0, 1)
    assert is_shown(command.command + command.answer)
    assert unescaped(command.command) == NASTY
    told = state.ServerState(
        *("Ann", "life", "\u202e1", 0.0, True, "\x1b]0;", "\u200eGoogle", 0, 0, 0, 0, 0, 0, 0),
        links={"\u061cBob": "live"},
        places=state.Histogram([], [0]),
        lag=state.Histogram([], [0]),
        commands=[command.__class__(1, 0.0, "\x1b", "\u2066", "\u202e \\x1b", "\x9b")],
    )
    read = state.read_state(state.write_state(told))
    assert read is not None
    assert read.commands is not None
    [one] = read.commands
    texts = [
        read.version,
        read.reason,
        read.places_by,
        *read.links,
        one.kind,
        one.outcome,
        one.command,
        one.answer,
    ]
    assert all(map(is_shown, texts))
    assert one.command == "\\u202e \\x1b"
