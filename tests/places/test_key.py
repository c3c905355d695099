"""Where the key for Google is found, and that what is wrong with one never shows it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from fake_google import KEY, ask, message
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.config import schema
from proxyherd.config.errors import ConfigError
from proxyherd.places import KEY_CREDENTIAL, KEY_VARIABLE, find_key
from proxyherd.places.answers import no_results


def test_the_key_is_looked_for_in_the_file_then_the_credential_then_the_environment(tmp_path: Path) -> None:
    places, herd = schema.PlacesSettings(key_file="secret/key"), tmp_path / "herd.toml"
    (tmp_path / "secret").mkdir()
    file, credential = tmp_path / "secret" / "key", tmp_path / KEY_CREDENTIAL
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), KEY_VARIABLE: " from-environment\n"}
    assert find_key(schema.PlacesSettings(), herd, {}) is None
    file.write_text("")
    assert find_key(places, herd, environ) == "from-environment"
    credential.write_text("\tfrom-credential\r\n")
    assert find_key(places, herd, environ) == "from-credential"
    file.write_text(" from-file ")
    assert find_key(places, herd, environ) == "from-file"


def test_a_file_that_is_named_is_read_whatever_the_others_hold(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / KEY_CREDENTIAL).write_text("two words")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), KEY_VARIABLE: "schlüssel"}
    assert find_key(schema.PlacesSettings(key_file="key"), tmp_path / "herd.toml", environ) == KEY


def test_the_names_are_those_that_units_and_pages_use() -> None:
    assert (KEY_CREDENTIAL, KEY_VARIABLE) == ("google-places-api-key", "GOOGLE_PLACES_API_KEY")


def test_a_key_with_the_byte_after_the_last_printable_one_is_none() -> None:
    assert find_key(schema.PlacesSettings(), Path("herd.toml"), {KEY_VARIABLE: "!~"}) == "!~"
    with pytest.raises(ConfigError, match="not ASCII"):
        find_key(schema.PlacesSettings(), Path("herd.toml"), {KEY_VARIABLE: "!\x7f"})


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=99))
def test_any_printable_ascii_is_a_key(key: str) -> None:
    assert find_key(schema.PlacesSettings(), Path("herd.toml"), {KEY_VARIABLE: f" {key}\n"}) == key


@pytest.mark.parametrize(("length", "fits"), [(4_096, True), (4_097, False)])
def test_a_file_named_by_mistake_is_not_read_to_its_end(tmp_path: Path, length: int, fits: bool) -> None:
    (tmp_path / "key").write_text("x" * length)
    places = schema.PlacesSettings(key_file="key")
    if fits:
        assert find_key(places, tmp_path / "herd.toml", {}) == "x" * length
    else:
        with pytest.raises(ConfigError, match="longer than"):
            find_key(places, tmp_path / "herd.toml", {})
        with pytest.raises(ConfigError, match="not a regular file"):
            find_key(schema.PlacesSettings(key_file="/dev/zero"), tmp_path / "herd.toml", {})


@pytest.mark.parametrize(
    "bad", [b"two words", "schlüssel".encode(), b"\xff\xfe" + KEY.encode(), b"bell\a", b"x" * 5_000, b"a\0b"]
)
def test_what_is_no_key_is_an_error_that_does_not_show_it(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "key").write_bytes(bad)
    for places, environ, where in (
        (schema.PlacesSettings(key_file="key"), {}, str(tmp_path / "key")),
        (schema.PlacesSettings(), {KEY_VARIABLE: os.fsdecode(bad)}, KEY_VARIABLE),
    ):
        with pytest.raises(ConfigError, match="write the key alone") as caught:
            find_key(places, tmp_path / "herd.toml", environ)
        assert where in str(caught.value)
        shown = "".join(traceback.format_exception(caught.value))
        for spelling in (bad.decode(errors="replace"), repr(bad)[2:-1], os.fsdecode(bad), KEY):
            assert spelling not in shown


def test_a_key_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / KEY_CREDENTIAL).mkdir()
    with pytest.raises(ConfigError, match=r"credential: .*Is a directory"):
        find_key(schema.PlacesSettings(), tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"herd\.toml: key places\.key_file: .*gone: No such file.*write"):
        find_key(schema.PlacesSettings(key_file="gone"), tmp_path / "herd.toml", {})
    with pytest.raises(ConfigError, match=r"herd\.toml: key places\.key_file: .*has a NUL.*write"):
        find_key(schema.PlacesSettings(key_file="a\0b"), tmp_path / "herd.toml", {})


@pytest.mark.parametrize("provider", ["google", "google-new"])
def test_google_without_a_key_answers_what_is_missing(provider: str) -> None:
    answer = ask("http://127.0.0.1:1", key=None, provider=provider)
    assert answer == no_results("REQUEST_DENIED", message(answer))
    assert KEY_VARIABLE in message(answer)
    assert "places.key_file" in message(answer)
