from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyherd.grading import cgroups

NAME = "proxyherd-grade-99999999-0"
"""Of a process that is no more: Linux has none with such an ID."""


class Hierarchy:
    """A folder that looks like the kernel's: a new group has files, which go with it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
        self.mounted = folder
        make, remove = Path.mkdir, Path.rmdir

        def mkdir(path: Path, *_: object, **__: object) -> None:
            make(path)
            for file in files:
                (path / file).touch()

        def rmdir(path: Path) -> None:
            for file in path.iterdir():
                file.unlink()
            remove(path)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)

    def make(self) -> cgroups.ControlGroup | None:
        return cgroups.make(NAME, 1024, 16, self.mounted)


def test_a_group_of_version_2_bounds_memory_swap_and_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").touch()
    group = Hierarchy(tmp_path, monkeypatch, "memory.max", "memory.swap.max", "pids.max").make()
    assert group is not None
    folder = tmp_path / NAME
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": "1024",
        "memory.swap.max": "0",
        "pids.max": "16",
    }
    assert group.doors == [folder / "cgroup.procs"]
    group.remove()
    assert not folder.exists()


def test_a_kernel_that_does_not_count_swap_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").touch()
    assert Hierarchy(tmp_path, monkeypatch, "memory.max", "pids.max").make() is not None


def test_a_group_of_version_1_is_one_for_each_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for controller in ("memory", "pids"):
        (tmp_path / controller).mkdir()
    group = Hierarchy(tmp_path, monkeypatch, "memory.limit_in_bytes", "pids.max").make()
    assert group is not None
    assert (tmp_path / "memory" / NAME / "memory.limit_in_bytes").read_text() == "1024"
    assert (tmp_path / "pids" / NAME / "pids.max").read_text() == "16"
    assert len(group.doors) == 2


@pytest.mark.parametrize("files", [[], ["memory.max"]])
def test_without_the_controllers_there_is_no_group_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    (tmp_path / "cgroup.controllers").touch()
    assert Hierarchy(tmp_path, monkeypatch, *files).make() is None
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.controllers"]


def test_what_a_killed_run_has_left_is_swept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").touch()
    hierarchy = Hierarchy(tmp_path, monkeypatch, "memory.max", "pids.max")
    assert hierarchy.make() is not None
    living = f"proxyherd-grade-{os.getpid()}-0"  # of another run, which has no process in it yet
    for name in ("others", living):
        (tmp_path / name).mkdir()
    cgroups.sweep("proxyherd-grade-", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cgroup.controllers", "others", living]
