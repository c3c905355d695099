"""A rubric: which checks count, in which groups, and for how many points. Pure, except for reading the file.

The rules: the possible points of a rubric are fixed, whatever could be seen. And a check that it does not name is
permitted to fail: it costs nothing, and what can't be judged because of it costs nothing either.

A rubric is a TOML file; docs/grading.md describes its keys. The two profiles, `assignment` and `strict`, are such
files, in `rubrics/`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

PROFILES: Final = ("assignment", "strict")
"""The rubrics that come with the package: what the course's text demands, and the whole client protocol."""

Verdict: TypeAlias = Literal["by hand", "lost", "excused"]
"""What becomes of the points of a check without an outcome: they are open, until a person has judged by hand; they are
lost; or they are given.
"""

MOST_POINTS: Final = 1_000_000
"""The most points of a check or a group."""

T = TypeVar("T", bound=Struct)


class RubricError(Exception):
    """A rubric cannot be used; the text names file, key and remedy."""


class Share(NamedTuple):
    """The group of a check, and its points."""

    group: str
    points: float


class _Key(NamedTuple):
    """A key in the table `checks` of a group: the ID of a check, or a pattern."""

    group: str
    pattern: str

    def __str__(self) -> str:
        return f'groups.{self.group}.checks."{self.pattern}"'


class Rubric(Struct, frozen=True):
    """A rubric for the checks that exist. `groups` has their titles by name; `shares` has the checks that count, in the
    order of the groups.
    """

    title: str
    groups: Mapping[str, str]
    shares: Mapping[str, Share]
    not_seen: Verdict = "by hand"
    not_judged: Verdict = "by hand"

    def points(self, check: str) -> float:
        """Return the points of a check; 0 if it does not count."""
        return self.shares[check].points if check in self.shares else 0.0

    def only(self, checks: Collection[str]) -> Rubric:
        """Return the part of it that is about these checks."""
        shares = {check: share for check, share in self.shares.items() if check in checks}
        names = {share.group for share in shares.values()}
        groups = {name: title for name, title in self.groups.items() if name in names}
        title = self.title if len(shares) == len(self.shares) else f"{self.title}, in part"
        return msgspec.structs.replace(self, title=title, groups=groups, shares=shares)

    def without(self, checks: Collection[str]) -> Rubric:
        """Return it less these checks, which do not exist for a herd; the title stays."""
        return msgspec.structs.replace(self.only(self.shares.keys() - set(checks)), title=self.title)

    @property
    def possible(self) -> float:
        """The points of all checks together."""
        return sum(share.points for share in self.shares.values())


class _Group(Struct, forbid_unknown_fields=True):
    title: Annotated[str, Meta(min_length=1)]
    checks: dict[str, object]
    points: object = None


class _RubricFile(Struct, forbid_unknown_fields=True):
    title: Annotated[str, Meta(min_length=1)]
    groups: dict[str, object]
    not_seen: Verdict = "by hand"
    not_judged: Verdict = "by hand"


def profile_text(name: str) -> str:
    """Return the rubric of a profile as TOML: a file to start from."""
    return resources.files(__package__).joinpath(f"rubrics/{name}.toml").read_text(encoding="utf-8")


def profile(name: str, checks: Collection[str]) -> Rubric:
    """Return a profile for these checks."""
    return parse(profile_text(name), f"rubrics/{name}.toml", checks)


def load(file: Path, checks: Collection[str]) -> Rubric:
    """Read a rubric for these checks, by their IDs. Raises RubricError."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RubricError(
            f"{file}: {error.strerror}; name a file with --rubric, or begin one with --print-rubric"
        ) from error
    except UnicodeDecodeError as error:
        raise RubricError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return parse(text, str(file), checks)


def parse(text: str, file: str, checks: Collection[str]) -> Rubric:
    """Check the text of a rubric; `file` is its name in errors. Raises RubricError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RubricError(f"{file}: not TOML: {error}") from error
    raw = _converted(document, _RubricFile, "", file)
    if not raw.groups:
        raise RubricError(f"{file}: key groups: is empty; a rubric has at least one group")
    groups = {name: _converted(table, _Group, f"groups.{name}", file) for name, table in raw.groups.items()}
    keys = [_Key(name, key) for name, group in groups.items() for key in group.checks]
    for key in keys:
        _expect_checks(key, file, checks)
    chosen = {check: _key_of(check, keys, file) for check in checks}
    return Rubric(
        title=raw.title,
        groups={name: group.title for name, group in groups.items()},
        shares={
            check: Share(name, points)
            for name, group in groups.items()
            for check, points in _points_in(name, group, chosen, file).items()
        },
        not_seen=raw.not_seen,
        not_judged=raw.not_judged,
    )


def _converted(value: object, to: type[T], key: str, file: str) -> T:
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as error:
        what, _, below = str(error).partition(" - at `$")
        path = key + below.rstrip("`")
        if unknown := re.search(r"unknown field `(.*)`", what):
            path = f"{key}.{unknown[1]}"
            what = f"is not known; the keys here are {', '.join(to.__struct_fields__)}"
        elif missing := re.search(r"missing required field `(.*)`", what):
            path, what = f"{key}.{missing[1]}", "is missing; add it"
        elif "enum value" in what:
            what += f"; write {', '.join(map(repr, get_args(Verdict)))}"
        raise RubricError(f"{file}: key {path.lstrip('.')}: {what}") from error


def _number(value: object, key: str, file: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_POINTS:
        raise RubricError(f"{file}: key {key}: {value!r} is no number from 0 to {MOST_POINTS:,}")
    return float(value)


def _expect_checks(key: _Key, file: str, checks: Collection[str]) -> None:
    """Raise RubricError if a key names no check."""
    if not any(fnmatchcase(check, key.pattern) for check in checks):
        near = difflib.get_close_matches(key.pattern, checks, 1)
        raise RubricError(
            f"{file}: key {key}: there is no such check; "
            + (f"did you mean {near[0]}?" if near else "docs/grading.md has all of them")
        )


def _key_of(check: str, keys: Sequence[_Key], file: str) -> _Key | None:
    """Return the key that decides about a check: its own ID, else the longest pattern."""
    found = [key for key in keys if fnmatchcase(check, key.pattern)]
    if not found:
        return None
    ranks = {key: (key.pattern == check, len(key.pattern)) for key in found}
    first, *others = [key for key in found if ranks[key] == max(ranks.values())]
    if others:
        raise RubricError(
            f"{file}: key {others[0]}: {check} is in {first} too; name it in one of them, by its ID"
        )
    return first


def _points_in(name: str, group: _Group, chosen: Mapping[str, _Key | None], file: str) -> dict[str, float]:
    """Return the checks of a group that count, with their points."""
    weights: dict[str, float] = {}
    for check, key in chosen.items():
        if key is not None and key.group == name:
            weights[check] = _number(group.checks[key.pattern], str(key), file)
    whole = sum(weights.values())
    if not whole:
        raise RubricError(f"{file}: key groups.{name}.checks: no check counts; name one, or drop the group")
    points = whole if group.points is None else _number(group.points, f"groups.{name}.points", file)
    if not points:
        raise RubricError(f"{file}: key groups.{name}.points: is 0; drop the group")
    return {check: points * weight / whole for check, weight in weights.items() if weight}
