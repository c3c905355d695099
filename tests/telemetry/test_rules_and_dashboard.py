"""The rules and the dashboard for Prometheus, as files: they ask for what there is, and the pages tell of each alert."""

from __future__ import annotations

import itertools
import re
import tomllib

import pytest
from herd_process import ROOT
from observed import metrics_of_a_server
from prometheus import DASHBOARD, SHIPPED, alerts, dashboard, panels, queries, rules, section, variables

SITE = tomllib.loads((ROOT / "docs/zensical.toml").read_text())
PAGES = f"{SITE['project']['extra']['repository']}/blob/main/docs"


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = (SHIPPED / "tests/alerts.yml").read_text()
    cases = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", tests)
    assert {name for name, none in cases if not none} == alerts().keys()
    assert {name for name, none in cases if none} == alerts().keys()


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_how_bad_what_how_much_and_where_to_read_on(name: str) -> None:
    text = alerts()[name]
    assert re.search(r"^ +severity: (critical|warning)$", text, re.MULTILINE)
    assert re.search(r"^ +summary: \S", text, re.MULTILINE)
    assert "{{ $value" in re.split(r"^ +description: ", text, flags=re.MULTILINE)[1]
    [recipe] = re.findall(r"^ +runbook_url: (\S+)$", text, re.MULTILINE)
    assert recipe == f"{PAGES}/operations.md#{name.lower()}"  # of a section that the next test finds


def test_every_alert_has_its_section_and_there_is_no_other() -> None:
    introduction, *parts = re.split(r"^### (\w+)$", section("Alerts"), flags=re.MULTILINE)
    assert parts[::2] == list(alerts())
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        assert re.findall(r"^- \*\*(.*?):\*\*", text, re.MULTILINE) == [
            "What it means",
            "What clients notice",
            "What to do",
            "How to see that it is over",
        ], name
    critical = {name for name, text in alerts().items() if "severity: critical" in text}
    assert set(re.findall(r"Proxyherd\w+", introduction)) == critical


def test_panels_that_the_sections_name_are_there() -> None:
    named = re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", " ".join(section("Alerts").split()))
    assert len(named) > 10
    assert set(named) <= {panel["title"] for panel in panels()}


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    families = list(metrics_of_a_server().registry.collect())
    there = {sample.name for family in families for sample in family.samples}
    there |= {f"{family.name}{end}" for family in families for end in ("", "_total", "_bucket", "_count")}
    asked = rules() + "".join(query for _, query in queries())
    named = set(
        re.findall(
            r"(?<![\w:])(?:proxyherd|process|python)_\w+(?![\w:])", re.sub(r"\bjob:|record: .*", "", asked)
        )
    )
    assert len(named) > 20
    assert named <= there


def test_recorded_series_that_are_asked_for_are_recorded_and_all_are() -> None:
    recorded = set(re.findall(r"record: (\S+)", rules()))
    asked = re.sub(r"record: \S+", "", rules()) + "".join(query for _, query in queries())
    assert set(re.findall(r"\b\w+:proxyherd_\w+:\w+", asked)) <= recorded
    assert all(
        re.fullmatch(r"(instance|job)(_\w+)?:proxyherd_\w+:(ratio_|p99_)?rate5m", name) for name in recorded
    )


UNITS = {"none", "short", "s", "bytes", "Bps", "ops", "percentunit", "currencyUSD"}


def test_every_panel_has_an_id_a_title_a_description_a_unit_and_queries() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_panels_do_not_overlap_and_stand_below_their_row() -> None:
    taken: set[tuple[int, int]] = set()
    last = -1
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert cells
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        assert at["y"] >= last, panel["title"]
        taken |= cells
        last = at["y"]


def test_dashboard_can_be_imported_anywhere_and_chooses_its_data_source() -> None:
    board = dashboard()
    assert board["uid"] == "proxyherd"  # a later import replaces it
    assert board["id"] is None
    assert [link["url"] for link in board["links"]] == [f"{PAGES}/operations.md#alerts"]
    assert variables()["datasource"]["type"] == "datasource"
    text = DASHBOARD.read_text()
    assert set(re.findall(r'"uid": "(.*?)"', text)) == {"${datasource}", "proxyherd"}
    sources = [panel["datasource"] for panel in panels()]
    sources += [target["datasource"] for panel in panels() for target in panel["targets"]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_every_query_is_of_the_herd_that_is_chosen() -> None:
    assert {"job", "server"} <= variables().keys()
    for title, query in queries():
        assert set(re.findall(r"\$(\w+)", query)) <= {"job", "server", "__rate_interval"}, title
        assert 'job="$job"' in query or "ALERTS" in query, title
