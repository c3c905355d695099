"""Every key of the herd's file takes what docs/configuration.md says of it, and nothing beyond: default, bounds, choices."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxyherd.config import schema
from proxyherd.config.auth import AuthSettings
from proxyherd.config.rates import RateSettings

PAGE = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
SECTIONS: dict[str, Any] = {
    "auth": AuthSettings,
    "limits": schema.Limits,
    "rates": RateSettings,
    "timing": schema.Timing,
    **{
        one: getattr(schema, f"{one.title()}Settings")
        for one in ("durability", "erasure", "table", "redis", "places", "tls", "admin", "web", "log")
    },
}
REQUIRED = {"redis": {"nodes": ["127.0.0.1:6379"]}}


def rows() -> dict[tuple[str, str], tuple[str, str]]:
    """Return default and bounds of each key, as they stand on the page."""
    found = {}
    for part in PAGE.split("\n## `[")[1:]:
        for key, default, bounds in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", part, re.MULTILINE):
            found[part.partition("]")[0], key] = default, bounds
    return found


ROWS = rows()


def value_of(section: str, **keys: object) -> Any:
    """Return a section in which these keys are set. Raises ValidationError."""
    return msgspec.convert(REQUIRED.get(section, {}) | keys, SECTIONS[section])


def numbers(bounds: str) -> list[float]:
    return [tomllib.loads(f"one = {number}")["one"] for number in re.findall(r"`([\d_.]+)`", bounds)]


def test_every_key_is_on_the_page_and_nothing_else() -> None:
    keys = {(name, key) for name, section in SECTIONS.items() for key in section.__struct_fields__}
    assert keys == set(ROWS)


@pytest.mark.parametrize(("section", "key"), ROWS)
def test_a_key_that_is_not_set_is_what_the_page_says(section: str, key: str) -> None:
    default = ROWS[section, key][0]
    if default == "required":
        with pytest.raises(msgspec.ValidationError, match="missing required field"):
            msgspec.convert({}, SECTIONS[section])
        return
    wanted = None if default == "none" else tomllib.loads(f"one = {default.strip('`')}")["one"]
    found = getattr(value_of(section), key)
    assert (list(found) if isinstance(found, tuple) else found) == wanted


@pytest.mark.parametrize(("section", "key"), [one for one, row in ROWS.items() if " to " in row[1]])
def test_a_number_may_be_what_its_bounds_say_and_not_the_least_beyond(section: str, key: str) -> None:
    bounds = ROWS[section, key][1]
    least, most = numbers(bounds)
    is_whole = SECTIONS[section].__annotations__[key].startswith("Annotated[int")
    below = least - 1 if is_whole else math.nextafter(least, -math.inf)
    above = most + 1 if is_whole else math.nextafter(most, math.inf)
    if bounds.startswith("above"):
        below, least = least, math.nextafter(least, math.inf)
    for value in (least, most):
        assert getattr(value_of(section, **{key: value}), key) == value
    for value in (below, above):
        with pytest.raises(msgspec.ValidationError, match=key):
            value_of(section, **{key: value})


@pytest.mark.parametrize(("section", "key"), [one for one, row in ROWS.items() if row[1].startswith('`"')])
def test_a_choice_is_one_of_those_on_the_page_and_no_other(section: str, key: str) -> None:
    choices = re.findall(r'`"(.*?)"`', ROWS[section, key][1])
    for choice in choices:
        assert getattr(value_of(section, **{key: choice}), key) == choice
    for other in ("", choices[0].upper(), f"{choices[0]} "):
        with pytest.raises(msgspec.ValidationError, match=key):
            value_of(section, **{key: other})


@pytest.mark.parametrize("section", SECTIONS)
def test_a_key_that_nobody_knows_is_refused_and_what_was_read_stays_as_it_is(section: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `nonsense`"):
        value_of(section, nonsense=1)
    read = value_of(section)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(read, read.__struct_fields__[0], None)


@pytest.mark.parametrize(
    ("key", "fits", "unfit"),
    [
        ("language", ["de", "zh-TW", "A0"], ["", "de_DE", "de&key=x", "de\n"]),
        (
            "field_mask",
            ["*", "places.id", "places.id,places.types9"],
            ["", ".id", "places.id, x", "places id", "*\n"],
        ),
    ],
)
def test_what_is_sent_to_google_as_it_stands_holds_nothing_that_could_end_it(
    key: str, fits: list[str], unfit: list[str]
) -> None:
    for text in fits:
        assert getattr(value_of("places", **{key: text}), key) == text
    for text in unfit:
        with pytest.raises(msgspec.ValidationError, match=key):
            value_of("places", **{key: text})


def test_a_cluster_needs_a_node_to_begin_with() -> None:
    with pytest.raises(msgspec.ValidationError, match="nodes"):
        value_of("redis", nodes=[])
    assert value_of("redis", nodes=["a:1"]).nodes == ("a:1",)
