"""`make mutants` finds what a weak test leaves open, and nothing where the tests are strong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mutants
import pytest
from click.testing import CliRunner, Result
from mutations import Mutant, mutants_of

pytestmark = pytest.mark.timeout(600)  # on a busy machine: they take seconds of CPU

TOOL = Path(mutants.__file__)

SOURCE = '''\
"""A tiny package."""

from __future__ import annotations

import os
import time

MOST: int = 3
"""Not the docstring's."""


def room(held: int, *, most: int = MOST) -> bool:
    """Whether there is room."""
    assert held is not None, "a number"
    return held < most


def wait(times: int) -> int:
    while times:
        times -= 1
    return times


def harm(path: str, *, really: bool = False) -> None:
    if really:
        open(path, "w").close()
        os.kill(os.getppid(), 9)
'''

SMALL = SOURCE.partition("def wait")[0].replace("import os\nimport time\n", "")

STRONG = """\
from tiny.rooms import harm, room, wait


def test_room():
    assert [room(held) for held in (2, 3, 4)] == [True, False, False]


def test_wait():
    assert wait(3) == 0


def test_harm(tmp_path):
    harm("{outside}")
"""

WEAK = """\
from tiny.rooms import room


def test_room():
    assert [room(held) for held in (2, 4)] == [True, False]
"""


HELPERS = '[tool.pytest.ini_options]\npythonpath = ["tests"]\n'

SHORT = "import mutants; mutants.TEST_CPU_SECONDS = 0.5; mutants.main()"
"""Mutants that never end take this long, and not several seconds."""


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if "--only" not in arguments:
        arguments = ("--only", "tiny", *arguments)
    return subprocess.run(
        [sys.executable, "-c", SHORT, "--root", str(root), "--package", "tiny", "--jobs", "2", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(TOOL.parent)},
    )


def refused(root: Path, *arguments: str) -> Result:
    """Run it in this process, where no mutant is tried."""
    return CliRunner().invoke(
        mutants.main, ["--root", str(root), "--package", "tiny", "--only", "tiny", *arguments]
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in (("tiny/__init__.py", ""), ("tiny/rooms.py", SOURCE), ("pyproject.toml", HELPERS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tests").mkdir()
    return tmp_path


def with_tests(project: Path, tests: str) -> Path:
    (project / "tests/test_rooms.py").write_text(tests.replace("{outside}", str(project / "outside")))
    return project


def test_a_weak_test_leaves_a_survivor_and_its_place_is_told(project: Path) -> None:
    """Whatever starts a process kills none: not a test beside it, nor a helper that does so when it is imported. Where
    everything is imported anew, what has nothing to do with the package is not.
    """
    (project / "tiny/rooms.py").write_text(SMALL)
    (project / "tests/helper.py").write_text("import subprocess\n\nsubprocess.run(['true'])\n")
    starts = "\n\ndef test_start():\n    import subprocess\n    subprocess.run(['true'])\n"
    told = run(with_tests(project, f"import helper\n{WEAK}{starts}"))
    assert told.returncode == 1, told.stdout + told.stderr
    assert "tiny/rooms.py:13: comparison\n  - return held < most\n  + return held <= most\n" in told.stdout
    assert "rooms.py:6: constant" in told.stdout
    assert "1 quick tests killed" in told.stdout
    assert "nothing is changed" not in told.stderr


def test_strong_tests_leave_none_and_no_mutant_harms_anybody(project: Path) -> None:
    told = run(with_tests(project, STRONG), "--least", "60")
    assert told.returncode == 0, told.stdout + told.stderr
    survived = [line for line in told.stdout.splitlines() if line.startswith("tiny/")]
    assert {line.split(":")[1] for line in survived} <= {"25", "26", "27"}, (
        told.stdout
    )  # what harms, and does not run
    assert not any("condition true" in line or "24:" in line for line in survived)
    assert not (project / "outside").exists()


def known(project: Path, **changes: str) -> None:
    entry = {
        "file": "tiny/rooms.py",
        "was": "return held < most",
        "becomes": "return held <= most",
        "why": "for this test",
    }
    lines = [f'{name} = "{text}"' for name, text in (entry | changes).items()]
    kept = project / "tests/mutation/mutants.toml"
    kept.parent.mkdir()
    kept.write_text("\n".join(["[[equivalent]]", *lines, ""]))


def test_a_test_that_fails_by_itself_is_told(project: Path) -> None:
    """It passes when lines are recorded, and fails afterwards."""
    (project / "tiny/rooms.py").write_text(SMALL)
    once = """
import sys
from tiny.rooms import room

def test_room():
    assert room(2)
    assert sys.gettrace(), "it is recorded"
"""
    told = run(with_tests(project, once), "--least", "0", "--most", "1")
    assert told.returncode == 1, told.stdout
    assert ": tests/test_rooms.py::test_room: fails though nothing is changed" in told.stderr


def test_what_is_known_to_change_nothing_is_not_tried(project: Path) -> None:
    with_tests(project, WEAK)
    assert refused(project, "--most", "0").output.startswith("0 of 17 mutants")
    known(project)
    assert refused(project, "--most", "0").output.startswith("0 of 16 mutants")


def test_what_is_kept_and_fits_no_mutant_any_more_is_refused(project: Path) -> None:
    with_tests(project, WEAK)
    known(project, becomes="return held != most")
    told = refused(project)
    assert told.exit_code == 2
    assert "'return held < most' to 'return held != most'" in told.stderr
    assert "mutants.toml" in told.stderr


@pytest.mark.parametrize("option", ["--only", "--tests"])
def test_a_file_that_is_not_there_is_named(project: Path, option: str) -> None:
    told = refused(with_tests(project, WEAK), option, "tiny/gone.py")
    assert told.exit_code == 2
    assert f"{option} tiny/gone.py: there is none" in told.stderr


def test_a_seed_chooses_the_same_mutants_again() -> None:
    path = TOOL.with_name("mutations.py")
    assert mutants_of(path) == mutants_of(path)


@pytest.mark.parametrize(
    ("source", "become"),
    [
        ("def f(a):\n    return a < 1\n", {"return a <= 1", "return a < 2", "return a < (0)", "return None"}),
        ("def f(a):\n    return a[1:]\n", {"return a[None:]", "return a[2:]", "return a[(0):]", "return None"}),
        ("def f(a):\n    a.b = a\n", {"pass"}),
        ("def f(a):\n    return not a\n", {"return a", "return None"}),
        ("def f(a, b):\n    return a and b\n", {"return (a or b)", "return None"}),
        ("def f(a):\n    return sorted(a)\n", {"return list(a)", "return None"}),
        ("def f(a):\n    return b'x'\n", {"return (b'XX' b'x')", "return None"}),
        ("X: Annotated[int, Meta(ge=5)] = 7\n", {
            "X: Annotated[int, Meta(ge=6)] = 7", "X: Annotated[int, Meta(ge=(4))] = 7",
            "X: Annotated[int, Meta(ge=5)] = 8", "X: Annotated[int, Meta(ge=5)] = (6)",
        }),
        ("MOST = 200\n", {"MOST = 2000", "MOST = 20"}),
        ("PAUSE = 0.5\n", {"PAUSE = 6.0", "PAUSE = 0.05"}),
        ('"""A docstring."""\n', set()),
        ("import os\nfrom x import y\n", set()),
        ("def f(a):\n    assert a > 1, 'no'\n", set()),
        ("if TYPE_CHECKING:\n    x = 1\n", set()),
        ("def f(a: Literal['x'] = None): ...\n", set()),
        ("T = TypeVar('T')\n", set()),
        ("Word = Literal['x', 'y']\n", set()),
        ("__all__ = ['x']\n", set()),
        ("@wraps(1)\ndef f(): ...\n", set()),
    ],
)  # fmt: skip
def test_mutants_are_those_that_a_test_could_notice(source: str, become: set[str], tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text(source)
    found: list[Mutant] = mutants_of(path)
    assert {mutant.lines()[1] for mutant in found} == become
    for mutant in found:
        compile(mutant.source(), path, "exec")


def test_every_mutant_of_the_package_compiles_but_few() -> None:
    path = TOOL.parents[2] / "proxyherd/core/peer_messages.py"
    found = mutants_of(path)
    assert len(found) > 100
    for mutant in found:
        compile(mutant.source(), path, "exec", dont_inherit=True)
