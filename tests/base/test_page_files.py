"""The files of web pages: all of them are read, each by one name."""

from __future__ import annotations

import pytest

from proxyherd.base.page_files import PACKAGE, SHARED, page_files

FOLDERS = ["admin/status_page/page", "web/page"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_page_has_its_own_files_and_the_shared_ones(folder: str) -> None:
    own, shared = ({file.name for file in place.iterdir()} for place in (PACKAGE / folder, SHARED))
    assert own.isdisjoint(shared)
    assert page_files(folder).keys() == own | shared


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_is_text_of_its_type(folder: str) -> None:
    files = page_files(folder)
    assert files["index.html"].body == (PACKAGE / folder / "index.html").read_bytes()
    types = {name: files[name].media_type for name in ("index.html", "page.css", "page.js", "coast.json")}
    assert [*types.values()] == ["text/html", "text/css", "text/javascript", "application/json"]
    for file in files.values():
        assert file.body.decode()
