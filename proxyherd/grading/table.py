"""The results of a class, as CSV and as a page of HTML. Pure.

Names and messages are strangers' text: a spreadsheet must not take them for formulas, nor a browser for HTML.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from proxyherd.grading.batch import REPORT, Record

_HEAD: Final = (
    *("submission", "problem", "attempts", "start_seconds", "seconds"),
    *("points", "open", "possible"),
)


def as_csv(records: Sequence[Record]) -> str:
    """Return a row for each submission, with a column for each group and each check: its points, or nothing if
    they are open.
    """
    groups, checks = _columns(records)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_HEAD, *groups, *checks])
    for one in records:
        made = {**_points(one, "groups", "name"), **_points(one, "checks", "id")}
        report = one.report or {}
        writer.writerow(
            [
                *(_harmless(one.name), _harmless(one.problem), one.attempts),
                *(_start(one), f"{one.seconds:.1f}"),
                *(report.get("points", 0), report.get("open", ""), report.get("possible", "")),
                *(made.get(column, "") for column in (*groups, *checks)),
            ]
        )
    return file.getvalue()


def as_html(records: Sequence[Record], title: str, notes: Sequence[str] = ()) -> str:
    """Return a page with the table, and a link to each report."""
    groups, _ = _columns(records)
    titles = {
        group["name"]: group["title"] for one in records for group in (one.report or {}).get("groups", [])
    }
    heads = ["Submission", "Points", *(titles[name] for name in groups), "Start", "Seconds", "Notes"]
    lines = [
        *("<!doctype html>", '<html lang="en">', '<meta charset="utf-8">'),
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        "<table>",
        "<thead><tr>"
        + "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
        + "</tr></thead>",
        "<tbody>",
        *(_row(one, groups) for one in records),
        *("</tbody>", "</table>", "</html>"),
    ]
    return "\n".join(lines) + "\n"


_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "th,td{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right}"
    "th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}"
    "thead th{position:sticky;top:0;background:#fff}"
)


def in_words(marks: Mapping[str, Any]) -> str:
    """Return the points of a report, or of one of its groups: those that are made, possible and open."""
    still_open = f" ({marks['open']} open)" if marks["open"] else ""
    return f"{marks['points']}/{marks['possible']}{still_open}"


def _row(one: Record, groups: Sequence[str]) -> str:
    made = {group["name"]: in_words(group) for group in (one.report or {}).get("groups", [])}
    points = in_words(one.report) if one.report else "0"
    notes = [*filter(None, [one.problem]), *([f"{one.attempts} attempts"] if one.attempts > 1 else [])]
    times = (_start(one), f"{one.seconds:.1f}")
    cells = [points, *(made.get(name, "") for name in groups), *times, "; ".join(notes)]
    name = html.escape(one.name)
    if one.attempts:
        name = f'<a href="{html.escape(quote(one.name))}/{REPORT}">{name}</a>'
    return (
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _start(one: Record) -> str:
    """Return how many seconds the slowest server took to start; empty if none did."""
    starts = (one.report or {}).get("starts", {})
    return f"{max(starts.values()):.1f}" if starts else ""


def _columns(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Return the names of all groups and checks, in the order of the reports."""

    def names(what: str, key: str) -> list[str]:
        return list(dict.fromkeys(item[key] for one in records for item in (one.report or {}).get(what, [])))

    return names("groups", "name"), names("checks", "id")


def _points(one: Record, what: str, key: str) -> dict[str, Any]:
    return dict(_pairs(one, what, key))


def _pairs(one: Record, what: str, key: str) -> Iterator[tuple[str, Any]]:
    for item in (one.report or {}).get(what, []):
        if item["possible"] or what == "groups":
            yield item[key], item["points"]


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
