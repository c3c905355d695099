"""Each ID has one name, and no two have the same; a path and JSON mean the same client by the same name."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxyherd.web.ids import NAME_BYTES, id_of, name_of, path_names, text_of
from proxyherd.web.problems import CLIENT, Problem

SPACES = b" \t\n\r\f\v"
EXAMPLES = {
    "kiwi.cs.ucla.edu": b"kiwi.cs.ucla.edu",
    "my phone": b"my%20phone",
    "my%20phone": b"my%2520phone",
    "my%2520phone": b"my%252520phone",
    " \t\n\r\f\v": b"%20%09%0A%0D%0C%0B",
    "%0A%0a": b"%250A%0a",
    "100%": b"100%",
    "100%25": b"100%25",
    "%41": b"%41",
    "%%20": b"%%2520",
    "% ": b"%%20",
    "%25 ": b"%25%20",
    "%FF": b"\xff",
    "%25FF": b"%FF",
    "%2525FF": b"%25FF",
    "%ff": b"%ff",
    "%E2%82": b"\xe2\x82",
    "jane/phone": b"jane/phone",
    "\x00\x1c": b"\x00\x1c",
    "\u00a0\u2003": "\u00a0\u2003".encode(),
    "kiwi\U0001f95d": "kiwi\U0001f95d".encode(),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_and_ids(name: str) -> None:
    assert id_of(name) == EXAMPLES[name]
    assert name_of(EXAMPLES[name]) == name


@pytest.mark.parametrize("name", ["", "%C3%A4", "a%E2%82%ACb", "%C3%A4%FF", "\ud800", "a\udcff"])
def test_a_text_that_no_id_has_as_its_name_is_a_problem(name: str) -> None:
    with pytest.raises(Problem) as raised:
        id_of(name)
    assert (raised.value.kind, raised.value.field) == (CLIENT, "client")


tokens = st.sampled_from(
    ["%", "25", "20", "0A", "0a", "FF", "C3", "A4", "E2", "82", "AC", "%20", "%25", "%C3", " ", "a", "ä"]
)
tricky = st.lists(tokens, min_size=1, max_size=8).map("".join)
names = tricky | st.text(min_size=1)
ids = (tricky.map(str.encode) | st.binary(min_size=1)).map(lambda data: b"".join(data.split())).filter(bool)


@given(ids)
@example(b"%25\xff")
@example(b"\xc3%A4")
def test_every_id_has_a_name_which_is_its_own(client: bytes) -> None:
    assert id_of(name_of(client)) == client


@given(names)
@example("%25%20 %2520")
def test_a_name_is_of_one_id_which_is_one_word_of_a_line(name: str) -> None:
    try:
        client = id_of(name)
    except Problem:
        assert "%" in name
        return
    assert client.split() == [client]
    assert name_of(client) == name


@given(names)
def test_in_a_path_a_name_is_encoded_as_javascript_does(name: str) -> None:
    raw = "/v1/clients/" + quote(name, safe="!~*'()") + "/places"
    assert path_names(raw) == ["v1", "clients", name, "places"]


@given(ids)
def test_a_path_may_have_the_bytes_of_an_id_that_is_not_utf8(client: bytes) -> None:
    (name,) = path_names("/" + quote(client, safe=""))
    if not any(byte > 0x7F for byte in client) or b"%" not in client:
        assert text_of(client) == name
        assert id_of(name) == client or b"%" in client


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/", [""]),
        ("/v1/clients/", ["v1", "clients", ""]),
        ("/v1/clients/a%2Fb", ["v1", "clients", "a/b"]),
        ("/v1/clients/a%252Fb", ["v1", "clients", "a%2Fb"]),
        ("/v1/clients/%00", ["v1", "clients", "\x00"]),
        ("/v1/clients/%3F%23", ["v1", "clients", "?#"]),
        ("/" * 16_000, [*[""] * 7, "/" * 15_992]),
        ("/v1/clients/a+b", ["v1", "clients", "a+b"]),
        ("/v1/clients/%F0%9F%A5%9D", ["v1", "clients", "\U0001f95d"]),
        ("/v1/clients/\U0001f95d", ["v1", "clients", "\U0001f95d"]),
        ("/v1/clients/\udcff%ff", ["v1", "clients", "%FF%FF"]),
        ("/v1/clients/..", ["v1", "clients", ".."]),
        ("//v1", ["", "v1"]),
        ("/" + "a" * 8_192, ["a" * 8_192]),
    ],
)
def test_a_path_is_split_before_it_is_decoded(raw: str, expected: list[str]) -> None:
    assert path_names(raw) == expected


@pytest.mark.parametrize("raw", ["/%", "/%4", "/%zz", "/a%2", "/%%41", "/%u0041", "/%-1"])
def test_a_percent_sign_that_encodes_nothing_is_a_problem(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        path_names(raw)
    assert raised.value.kind is CLIENT


@given(st.binary(max_size=40))
def test_any_line_can_be_shown_as_text(line: bytes) -> None:
    text = text_of(line)
    text.encode()
    try:
        assert text == line.decode()
    except UnicodeDecodeError:
        assert "%" in text
    assert not any(byte in SPACES for byte in text.encode()) or any(byte in SPACES for byte in line)


def test_a_name_is_at_most_as_long_as_a_line() -> None:
    assert id_of("%" * NAME_BYTES) == b"%" * NAME_BYTES
    for name in ("a" * (NAME_BYTES + 1), "ä" * (NAME_BYTES // 2) + "a"):
        with pytest.raises(Problem) as raised:
            id_of(name)
        assert raised.value.kind is CLIENT


def test_only_a_name_with_bytes_that_may_be_utf8_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That costs as much as the name itself, and a batch has a thousand."""
    checked: list[bytes] = []

    def checking(client: bytes) -> str:
        checked.append(client)
        return name_of(client)

    monkeypatch.setattr("proxyherd.web.ids.name_of", checking)
    for name in (" " * 2_000, "%20" * 2_000, "%" + "25" * 2_000 + "FF", "\u00e4 " * 2_000):
        assert name_of(id_of(name)) == name
    assert not checked
    assert id_of("%FF")
    assert len(checked) == 1
