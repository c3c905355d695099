"""The command lines of a sandbox; what the kernel makes of them is in tests/system/test_grade_batch.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.grading import sandbox
from proxyherd.grading.sandbox import Bounds, Layout

BOUNDS = Bounds(memory=1 << 30, processes=64, disk=1 << 20, output=1 << 19)


def joined(words: list[str]) -> str:
    return " ".join(words)


def test_as_root_servers_are_a_user_of_their_own_without_rights(tmp_path: Path) -> None:
    words = joined(sandbox.inner(Layout(tmp_path, 2_000_000_003), BOUNDS))
    assert "--unshare-user" not in words
    assert words.endswith(
        "setpriv --reuid=2000000003 --regid=2000000003 --clear-groups --inh-caps=-all --bounding-set=-all "
        "--no-new-privs prlimit --nproc=64 --data=1073741824 --core=0 --memlock=0 --"
    )


def test_for_others_there_is_a_user_namespace(tmp_path: Path) -> None:
    layout = Layout(tmp_path, None)
    assert "--unshare-user" in sandbox.outer(layout, BOUNDS, ["true"])
    inner = sandbox.inner(layout, BOUNDS)
    assert "--unshare-user" in inner
    assert inner[:3] == ["setpriv", "--inh-caps=-all", "--ambient-caps=-all"]


@pytest.mark.parametrize("user", [None, 2_000_000_000])
def test_the_outer_layer_has_its_own_network_and_ends_with_its_parent(
    tmp_path: Path, user: int | None
) -> None:
    words = sandbox.outer(Layout(tmp_path, user), BOUNDS, ["grader", "--x"])
    assert words[0] == "bwrap"
    assert {"--die-with-parent", "--unshare-net", "--unshare-pid", "--unshare-ipc"} <= set(words)
    assert words[-3:] == ["--", "grader", "--x"]
    assert f"--size {BOUNDS.disk} --tmpfs {tmp_path}/files" in joined(words)
    assert f"--size {BOUNDS.output} --tmpfs {tmp_path}/output" in joined(words)


def test_servers_write_nowhere_but_in_their_copy_and_share_the_graders_network(tmp_path: Path) -> None:
    words = sandbox.inner(Layout(tmp_path, 2_000_000_000), BOUNDS)
    assert "--unshare-net" not in words
    assert "--bind" in words
    assert joined(words).count("--bind ") == 1
    assert f"--bind {tmp_path}/files /tmp" in joined(words)
    assert words.index("--ro-bind") < words.index("--bind")
    assert "--chdir /tmp/submission" in joined(words)


def test_hidden_folders_are_empty_and_shown_ones_are_read_only_in_them(tmp_path: Path) -> None:
    words = joined(
        sandbox.inner(
            Layout(
                tmp_path,
                None,
                hidden=[Path("/usr/share"), Path("/tmp/x"), Path("/")],
                shown=[Path("/usr/share/doc")],
            ),
            BOUNDS,
        )
    )
    hides, shows = (
        "--tmpfs /usr/share ",
        "--dir /usr --dir /usr/share --ro-bind /usr/share/doc /usr/share/doc",
    )
    assert words.index(hides) < words.index(shows)
    assert words.index(shows) < words.index("--remount-ro /usr/share ")
    assert words.index("--dev /dev ") < words.index("--remount-ro /dev ")
    assert "--tmpfs / " not in words
    assert "--tmpfs /tmp/x" not in words


def test_servers_enter_their_control_groups_before_anything_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path, 2_000_000_000, doors=[Path("/g/a/cgroup.procs"), Path("/g/b/cgroup.procs")])
    words = sandbox.inner(layout, BOUNDS)
    assert words[:2] == ["sh", "-c"]
    assert "for door in /g/a/cgroup.procs /g/b/cgroup.procs;" in words[2]
    assert words[4] == "bwrap"


def test_a_file_may_lie_over_another(tmp_path: Path) -> None:
    layout = Layout(tmp_path, None, over={"/etc/hosts": tmp_path / "hosts"})
    assert f"--ro-bind {tmp_path}/hosts /etc/hosts" in joined(sandbox.inner(layout, BOUNDS))


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.problem(Layout(tmp_path, None), BOUNDS) == "bwrap, setpriv, prlimit cannot be found"
