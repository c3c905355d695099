"""The results of a class, as CSV and as a page of HTML. Pure.

Names and messages are strangers' text: a spreadsheet must not take them for formulas, nor a browser for HTML. And a
browser runs no script on the page but ours, which sorts the table.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from proxyherd.grading.records import REPORT, Record

_HEAD: Final = (
    *("submission", "problem", "attempts", "start_seconds", "seconds"),
    *("points", "open", "possible"),
)


_NOTHING: Final = {True: "0", False: ""}
"""The points of a submission without a report, by whether that is final."""


def as_csv(records: Sequence[Record]) -> str:
    """Return a row for each submission, with a column for each group and each check: its points, or nothing if
    all of them are open.
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
                *(_harmless(one.name), _harmless(one.reason), one.attempts),
                *(_start(one), f"{one.seconds:.1f}"),
                *(
                    report.get("points", _NOTHING[one.is_final]),
                    report.get("open", ""),
                    report.get("possible", ""),
                ),
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
    heads = ["Submission", "Points", *(titles[name] for name in groups), "Start, s", "Time, s", "Notes"]
    lines = [
        *("<!doctype html>", '<html lang="en">', '<meta charset="utf-8">'),
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        "<table>",
        "<thead><tr>"
        + "".join(f'<th scope="col"><button>{html.escape(head)}</button></th>' for head in heads)
        + "</tr></thead>",
        "<tbody>",
        *(_row(one, groups) for one in records),
        *("</tbody>", "</table>", f"<script>{_SCRIPT}</script>", "</html>"),
    ]
    return "\n".join(lines) + "\n"


_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem}table{border-collapse:collapse}"
    "th,td{padding:.2rem .6rem;border-bottom:1px solid #ccc;text-align:right}"
    "th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}"
    "thead th{position:sticky;top:0;background:#fff}button{font:inherit;font-weight:bold;border:0;padding:0;background:none;"
    "cursor:pointer}[aria-sort=ascending] button::after{content:' \\2191'}[aria-sort=descending] button::after{content:"
    "' \\2193'}"
)

_SCRIPT: Final = """
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const text = (row) => row.cells[column].textContent;
  const order = (one, other) => parseFloat(one) - parseFloat(other) || one.localeCompare(other);
  body.append(...[...body.rows].sort((one, other) => sign * order(text(one), text(other))));
}));
"""
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()}'"
)


def in_words(marks: Mapping[str, Any]) -> str:
    """Return the points of a report, or of one of its groups: those that are made, possible and open."""
    still_open = f" ({marks['open']} open)" if marks["open"] else ""
    return f"{marks['points']}/{marks['possible']}{still_open}"


def _row(one: Record, groups: Sequence[str]) -> str:
    made = {group["name"]: in_words(group) for group in (one.report or {}).get("groups", [])}
    points = in_words(one.report) if one.report else _NOTHING[one.is_final]
    notes = [*filter(None, [one.reason]), *([f"{one.attempts} attempts"] if one.attempts > 1 else [])]
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
    """Return the points that are made, by group or check; nothing where all are open."""
    items = [item for item in (one.report or {}).get(what, []) if item["possible"]]
    return {
        item[key]: "" if item["points"] is None or item.get("open") == item["possible"] else item["points"]
        for item in items
    }


def _harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
