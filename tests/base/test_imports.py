from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

import pytest

from proxyherd.base import imports
from proxyherd.base.imports import quick_imports


@pytest.fixture
def unwanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a library that is installed and unwanted."""
    (tmp_path / "surely_unwanted.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imports, "UNWANTED", ("surely_unwanted",))
    monkeypatch.delitem(sys.modules, "surely_unwanted", raising=False)
    return "surely_unwanted"


def test_what_is_unwanted_cannot_be_imported_meanwhile_and_can_be_later(unwanted: str) -> None:
    with quick_imports(), pytest.raises(ImportError):
        importlib.import_module(unwanted)
    assert importlib.import_module(unwanted).VALUE == 7


def test_what_was_imported_before_stays(unwanted: str) -> None:
    before = importlib.import_module(unwanted)
    with quick_imports():
        assert importlib.import_module(unwanted) is before
    assert sys.modules[unwanted] is before


def test_garbage_is_collected_again_even_after_an_error() -> None:
    collects = []

    def fail() -> None:
        with quick_imports():
            collects.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert (collects, gc.isenabled()) == ([False], True)


def test_garbage_is_not_collected_where_it_was_not_before() -> None:
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
