"""The report of a grading."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from proxyherd.grading.faults import Fault
from proxyherd.grading.report import GradingReport, Result, as_json, as_junit, as_text


def test_what_a_stranger_sent_cannot_break_a_report() -> None:
    nasty = "\0\x1b[2J<&\"'>\n\ud800é]]>"
    fault = Fault(nasty, b"\0\x1b<&\xff", nasty, nasty)
    results = [
        Result("a.b", "s", "t", "r", 4, 0.1, fault=fault),
        Result("a.c", "s", "t", "r", 4, 0.1, not_seen=nasty),
        Result("a.d", "s", "t", "r", 4, 0.1, not_applicable=nasty),
        Result("a.d", "s", "t", "r", 4, 0.1),
    ]
    report = GradingReport({nasty: "h:1"}, {"s": "S"}, results, 1.0)
    assert report.points() == (4, 8)
    assert as_text(report).count("\n") == as_text(
        GradingReport({"Ann": "h:1"}, {"s": "S"}, results, 1.0)
    ).count("\n")
    for text in (as_text(report), as_json(report).decode(), as_junit(report)):
        assert text.replace("\n", "").isprintable()
    ET.fromstring(as_junit(report))
    assert json.loads(as_json(report))["possible"] == 8
