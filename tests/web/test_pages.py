"""The pages for people: where they are, what browsers are told about them, and that they keep the rules of their policy."""

from __future__ import annotations

import json
import posixpath
import re
from html import unescape
from pathlib import Path

import pytest

from proxyherd.base.page_files import PageFile, page_files
from proxyherd.web.openapi import openapi_document
from proxyherd.web.pages import Pages
from proxyherd.web.problems import KINDS

ROOT = Path(__file__).parents[2]
FILES = page_files("web/page")
TEXTS = {name: file.body.decode() for name, file in FILES.items()}
PATHS = {"index.html": "/", "fence.html": "/fence", "help.html": "/v1/"}


def help_page() -> str:
    return Pages(FILES).answer(("v1", ""), "").body.decode()


def path(name: str) -> str:
    return PATHS.get(name, f"/page/{name}")


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_one_path_and_tells_the_browser_what_it_may_do(name: str) -> None:
    names, pages = path(name).split("/")[1:], Pages(FILES)
    assert pages.has(names)
    assert pages.is_page(path(name)) == (name in PATHS)
    answer = pages.answer(names, "")
    headers = dict(answer.headers)
    assert (answer.status, headers["Cache-Control"]) == (200, "no-cache")
    assert answer.content_type == f"{FILES[name].media_type}; charset=utf-8"
    assert headers["Permissions-Policy"] == "geolocation=(self)"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }


@pytest.mark.parametrize("names", [("page",), ("page", ""), ("page", "index.html"), ("v1",), ("", ""), ()])
def test_nothing_else_is_there(names: tuple[str, ...]) -> None:
    assert not Pages(FILES).has(names)
    assert not Pages({}).has(("",))
    assert not Pages({}).is_page("/")


def test_a_browser_that_has_the_file_gets_it_no_more_until_it_changes() -> None:
    page = Pages({"index.html": PageFile(b"one", "text/html")})
    tag = dict(page.answer(("",), "").headers)["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{16}"', tag)
    for none_match in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = page.answer(("",), none_match)
        assert (answer.status, answer.body, dict(answer.headers)["ETag"]) == (304, b"", tag)
    for none_match in ("", '"other"', tag[:-1], tag.strip('"')):
        assert page.answer(("",), none_match).status == 200
    changed = Pages({"index.html": PageFile(b"two", "text/html")})
    assert changed.answer(("",), tag).status == 200


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_names_is_there_and_nothing_of_it_is_elsewhere(name: str) -> None:
    """And it works behind a proxy that puts a path of its own before all of ours."""
    text = TEXTS[name]
    named = re.findall(r'(?:\ssrc|\shref|\sfrom|new URL)\s?[=(]?\s?"([^"]+)"', text)
    paths = {path(one) for one in FILES} | {"/v1/openapi.json"}
    for one in named:
        assert not one.startswith("/"), one
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path(name)), one.partition("#")[0]))
        folder = "/" if one.partition("#")[0].endswith("/") and target != "/" else ""
        assert f"{target}{folder}" in paths, one
    assert len(named) >= {"index.html": 4, "fence.html": 5, "help.html": 5, "page.js": 7, "fence.js": 8}.get(
        name, 0
    )


@pytest.mark.parametrize("name", FILES)
def test_all_text_is_set_as_text_and_no_script_or_style_stands_in_a_page(name: str) -> None:
    text = TEXTS[name]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
    )
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text)


def test_the_pages_are_small() -> None:
    own = sum(len(file.body) for name, file in FILES.items() if not name.endswith(".json"))
    assert own < 80 << 10
    assert len(FILES["los-angeles.json"].body) < 16 << 10
    assert max(text.count("\n") for text in TEXTS.values()) < 200


@pytest.mark.parametrize("name", PATHS)
def test_every_place_of_a_page_that_is_named_is_there_once(name: str) -> None:
    text = help_page() if name == "help.html" else TEXTS[name]
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len({*ids}) == len(ids)
    assert {*re.findall(r'\s(?:for|aria-labelledby|aria-describedby)="([^"]+)"', text)} <= {*ids}


def test_the_scripts_ask_for_elements_that_are_there() -> None:
    asked = re.findall(r'byId\("(\w+)"\)', "".join(TEXTS.values()))
    pages = TEXTS["index.html"] + TEXTS["fence.html"]
    assert {*asked} <= {*re.findall(r'\sid="([^"]+)"', pages)}
    assert len(asked) > 20


def test_the_page_about_requests_has_the_places_that_other_pages_name_and_all_ops() -> None:
    places = re.findall(r'href="v1/#([^"]+)"', TEXTS["index.html"] + TEXTS["fence.html"])
    assert {*places} <= {*re.findall(r'\sid="([^"]+)"', help_page())}
    ops = re.search(r"The ops are (.+)\.", (ROOT / "docs/web.md").read_text())
    assert ops is not None
    section = help_page().partition('id="websocket"')[2].partition("<h2")[0]
    assert [op for op in ops[1].split(", ") if f"<code>{op}</code>" not in section] == []


def test_each_kind_of_problem_has_its_place_on_the_page() -> None:
    rows = dict(re.findall(r'<tr id="([^"]+)">(.*?)</tr>\n', help_page()))
    assert [*rows] == [kind.name for kind in KINDS]
    for kind in KINDS:
        assert kind.type == f"/v1/#{kind.name}"
        assert not re.search('[<>&"]', kind.title)
        assert f"<td>{kind.status}</td><td>{kind.title}</td>" in rows[kind.name]
        again = f"Yes, after the seconds in <code>Retry-After</code> ({kind.retry_seconds})"
        assert rows[kind.name].endswith(f"<td>{again if kind.retry_seconds else 'No'}</td>")


def test_the_page_tells_the_paths_of_the_api_and_no_others_each_with_an_example() -> None:
    headings = re.findall(r"(?:([A-Z]+)</code> or <code>)?([A-Z]+) (/[^<?]*)</code>", help_page())
    told = {(method, one) for *methods, one in headings for method in methods if method}
    paths = json.loads(openapi_document())["paths"]
    documented = {(key.upper(), one) for one, item in paths.items() for key in item if key != "parameters"}
    assert told == documented | {("GET", "/"), ("GET", "/fence")}
    examples = unescape("\n".join(re.findall(r"<pre>(.*?)</pre>", help_page(), re.DOTALL)))
    for one in {*paths} - {"/v1/", "/v1/openapi.json"}:
        assert re.search(re.escape(one).replace(r"\{id\}", r"\w+"), examples), one
