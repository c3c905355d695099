"""`proxyherd grade --batch`: a class at once, in sandboxes, whatever its submissions do.

The class has a submission of each kind of tests/support/a_class.py but the slowest. For a class of fifty, some 10 minutes:

    PROXYHERD_CLASS=50 .venv/bin/pytest tests/system/test_grade_batch.py
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

import a_class
import psutil
import pytest
from debian import needs
from gazetteer_file import gazetteer_file
from herd_process import ROOT, free_port, wait_until

from proxyherd.grading import keeping, sandbox
from proxyherd.grading.servers import GradedServer

SIZE = int(os.environ.get("PROXYHERD_CLASS", "0"))
KINDS = [kind for kind in a_class.KINDS if SIZE or kind != "mute"]
FULL, LESS = 28, 24
"""Points for times and differences: all, and with one fault."""

pytestmark = [
    needs("bwrap", "setpriv", "prlimit", "openssl", "curl", "node", root=True),
    pytest.mark.xdist_group("a class"),  # two at once take as long, and more memory
]


class Class:
    """A class of submissions, and its results."""

    def __init__(self, folder: Path, ports: Mapping[str, int] = a_class.PORTS) -> None:
        self.folder = folder
        addresses = [f"{name}=127.0.0.1:{port}" for name, port in ports.items()]
        self.submissions = folder / "submissions"
        self.output = folder / "grades"
        (folder / "secret").touch()
        self.words = [
            *(sys.executable, "-m", "proxyherd", "grade", *addresses, "--batch", str(self.submissions)),
            *("--output", str(self.output), "--start", "python3 server.py {name}", "--jobs", "2"),
            *("--env", f"CLASS_FILES={self.submissions}:{self.output}/results.csv:{folder}/secret"),
            *("--only", "times", "--patience", "2"),
            *("--deadline", "60", "--disk", "32", "--memory", "256", "--processes", "64"),
        ]

    def grade(self, *more: str) -> subprocess.CompletedProcess[str]:
        with self.start(*more) as grader:
            said, errors = grader.communicate(timeout=max(300, 30 * SIZE))
        return subprocess.CompletedProcess(grader.args, grader.returncode, said, errors)

    def start(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.words, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def left(self) -> list[str]:
        """What it may have left: processes, files, groups. Other classes may be graded on this machine meanwhile."""
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in value for value in one.environ().values()):
                    found.append(f"{one.pid} {one.name()}")
        folders = [Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/etc"), Path("/run")]
        found += [str(folder / a_class.MARK) for folder in folders if (folder / a_class.MARK).exists()]
        # Unlike glob, walk bears that other tests' groups end meanwhile.
        for folder, names, _ in os.walk("/sys/fs/cgroup"):
            groups = [name.split("-") for name in names if re.fullmatch("proxyherd-grade-[^-]+-.+", name)]
            found += [f"{folder}: {group}" for group in groups if not Path("/proc", group[2]).exists()]
        found += [str(path) for path in self.output.rglob(".*")]
        return found

    def rows(self) -> dict[str, dict[str, str]]:
        with (self.output / "results.csv").open(newline="") as file:
            return {row["submission"]: row for row in csv.DictReader(file)}

    def gradings(self) -> dict[str, int]:
        """When each submission was graded, in nanoseconds."""
        return {file.parent.name: file.stat().st_mtime_ns for file in self.output.glob("*/result.json")}


@pytest.fixture(scope="module")
def graded(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Class, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("class")
    made = Class(folder)
    for number, kind in enumerate(islice(cycle(KINDS), SIZE or len(KINDS))):
        a_class.make(made.submissions / f"{number:02}-{kind}", a_class.KINDS[kind])
    a_class.make(folder / "packed/project/herd", a_class.KINDS["honest"])
    (folder / "packed/__MACOSX").mkdir()
    (folder / "packed/__MACOSX/._project").touch()
    shutil.make_archive(str(folder / "packed"), "zip", folder / "packed")
    shutil.move(folder / "packed.zip", made.submissions / "99-honest.ZIP")
    (made.submissions / "late.rar").touch()
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # somebody has it already
            held.enter_context(socket.create_server(("127.0.0.1", a_class.PORTS["Ann"])))
        return made, made.grade()  # a port that is in use is of no matter to a sandbox


def test_each_submission_has_the_marks_that_it_deserves(
    graded: tuple[Class, subprocess.CompletedProcess[str]],
) -> None:
    made, done = graded
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"Passed over, .*\(\.zip, .*\): late\.rar\n", done.stderr)
    rows = made.rows()
    told = re.findall(r"^(\d+) of (\d+): (\S+): \S.*$", done.stderr, re.MULTILINE)  # as each one ends
    assert told == [(str(number), str(len(rows)), name) for number, (_, _, name) in enumerate(told, 1)]
    assert {name for _, _, name in told} == rows.keys()
    assert len(rows) == len(list(made.submissions.iterdir())) - 1
    for name, row in rows.items():
        kind = a_class.KINDS[name[3:].removesuffix(".ZIP")]
        if kind.problem:
            assert kind.problem in row["problem"], row
            assert row["points"] == "0", row
        else:
            wanted = LESS if kind.fault == "float" else FULL  # floods for ever cost no more than their mark
            assert (row["problem"], row["points"], row["possible"]) == ("", str(wanted), str(FULL)), row
            assert row["times"] == str(wanted)


def test_who_cannot_start_reads_the_command_and_what_it_printed(
    graded: tuple[Class, subprocess.CompletedProcess[str]],
) -> None:
    """And nothing of the sandbox around it."""
    made, _ = graded
    [report] = [file.read_text() for file in made.output.glob(f"{KINDS.index('no-python'):02}-*/report.txt")]
    assert "\n  command   python3 server.py " in report
    assert re.search(r"\n  printed     File .*server\.py.*\n +for\n.*\n +SyntaxError: ", report), report


def test_nothing_is_left_of_it(graded: tuple[Class, subprocess.CompletedProcess[str]]) -> None:
    made, _ = graded
    wait_until(lambda: not made.left(), f"nothing is left: {made.left()}")
    assert sum(file.stat().st_size for file in made.output.rglob("*") if file.is_file()) < 1 << 22
    assert {path.name for path in made.output.iterdir() if not path.is_dir()} == {
        *("class.json", "results.csv", "results.html")
    }
    for folder in filter(Path.is_dir, made.output.iterdir()):
        assert {path.name for path in folder.iterdir()} <= {"result.json", "report.txt"}
    assert not [path for path in (made.output, *made.output.rglob("*")) if path.stat().st_mode & 0o007]


def test_the_page_shows_all_and_links_the_reports(
    graded: tuple[Class, subprocess.CompletedProcess[str]],
) -> None:
    made, _ = graded
    page = (made.output / "results.html").read_text()
    for name in made.rows():
        assert f'<a href="{name}/report.txt">{name}</a>' in page
        assert (made.output / name / "report.txt").exists()
    assert not re.search("src=|https?:", page)
    assert "late.rar" in page


def test_only_what_has_changed_is_graded_again(
    graded: tuple[Class, subprocess.CompletedProcess[str]],
) -> None:
    made, _ = graded
    before, rows = made.gradings(), made.rows()
    again = made.grade()
    assert again.returncode == 1, again.stderr
    assert made.gradings() == before
    assert made.rows() == rows
    (made.submissions / "00-honest/NOTES").write_text("Better.")
    (made.output / "99-honest.ZIP/result.json").write_text('{"name": ')  # a disk that failed
    made.grade()
    after = made.gradings()
    assert {name for name in after if after[name] != before[name]} == {"00-honest", "99-honest.ZIP"}
    assert made.rows().keys() == rows.keys()


def test_a_run_that_is_broken_off_writes_its_table_leaves_nothing_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is ended: the command and the process that grades by SIGKILL, and the command by Ctrl-C."""
    monkeypatch.setenv(
        "PROXYHERD_GAZETTEER", str(gazetteer_file())
    )  # so that there is a key, for Google's names
    made = Class(tmp_path)
    for name, kind in (("a", "honest"), ("b", "forks"), ("c", "no-python")):
        a_class.make(made.submissions / name, a_class.KINDS[kind])
    running = made.start("--jobs", "1")
    wait_until(lambda: "a" in made.gradings(), "the first submission is graded")
    first = made.gradings()
    second = made.grade()
    assert (second.returncode, second.stdout) == (2, "")
    assert "another grading writes there" in second.stderr
    assert (made.output / ".google").exists(), "the second has taken nothing away"
    running.kill()
    running.communicate()
    wait_until(lambda: not made.left(), f"nothing is left: {made.left()}")
    rows = made.rows()
    assert [(row["points"], row["problem"]) for row in rows.values()] == [
        (str(FULL), ""),
        *[("", "not graded yet")] * 2,
    ]
    for number in (signal.SIGKILL, signal.SIGINT):
        running = made.start("--jobs", "1")
        wait_until(lambda: len(made.left()) > 20, "one more is being graded, and forks")
        [grader] = psutil.Process(running.pid).children()
        (grader if number is signal.SIGKILL else running).send_signal(number)
        said, errors = running.communicate()
        assert (running.returncode, made.left()) == (4, []), errors
    assert re.search(r"\Aa +28/28 points\nb +not graded yet\nc +not graded yet\n", said), said
    assert "broken off, with 1 of 3 submissions graded; the same command goes on" in errors
    assert made.grade().returncode == 1
    assert made.gradings()["a"] == first["a"]
    assert made.gradings().keys() == {"a", "b", "c"}
    assert made.left() == []


def test_the_results_of_another_class_are_not_written_over(tmp_path: Path) -> None:
    made = Class(tmp_path)
    a_class.make(made.submissions / "a", a_class.KINDS["honest"])
    made.output.mkdir()
    (made.output / "class.json").write_text('{"submissions": "/classes/spring"}')
    (made.output / "results.csv").write_text("theirs")
    done = made.grade()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{made.output}: holds the results of another class, /classes/spring; name another" in done.stderr
    assert (made.output / "results.csv").read_text() == "theirs"
    assert not made.gradings()


POLITE = """
import pathlib, signal, socket, sys, time

def end(*_):
    time.sleep(0.2)
    pathlib.Path("ended").touch()
    sys.exit()

signal.signal(signal.SIGTERM, end)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()[0].close()
"""


def test_a_server_in_a_sandbox_is_told_to_end_and_has_time_for_it(tmp_path: Path) -> None:
    """A signal to the sandbox itself would end its server at once."""
    layout = sandbox.Layout(tmp_path, sandbox.FIRST_USER + 99, shown=sandbox.shown_paths())
    layout.copy.mkdir(parents=True)
    (layout.copy / "server.py").write_text(POLITE)
    layout.copy.chmod(0o777)
    within = sandbox.inner(layout, sandbox.Bounds())
    started = keeping.Started(
        "python3 server.py {port}", tmp_path, tmp_path, signal.SIGTERM, {"PATH": os.defpath}, within
    )
    server = GradedServer("Ann", "127.0.0.1", free_port())

    async def run() -> None:
        await started.start([server])
        await started.lose(server)

    try:
        asyncio.run(run())
    finally:
        started.end()
    assert (layout.copy / "ended").exists()


SITE = Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
OTHER_USER = 64_001
AS_ANOTHER = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", "env"]


def test_without_root_there_is_a_sandbox_too() -> None:
    """By a user namespace. This needs a Python that others may run."""
    environ = {"PATH": os.defpath, "PYTHONPATH": f"{ROOT}:{SITE}"}

    def runs(python: str) -> bool:
        tried = [*AS_ANOTHER, python, "-c", "import proxyherd.cli.grade"]
        return not subprocess.run(tried, env=environ, cwd="/", capture_output=True, check=False).returncode

    python = next(filter(runs, (sys.executable, "/usr/bin/python3")), None)
    if python is None:
        pytest.skip("other users may not run this Python, nor is the system's of its version")
    kinds = ("honest", "forks", "fills-disks", "pries")
    with tempfile.TemporaryDirectory() as folder:
        made = Class(Path(folder))
        for kind in kinds:
            a_class.make(made.submissions / kind, a_class.KINDS[kind])
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, OTHER_USER, OTHER_USER)
        done = subprocess.run(
            [*AS_ANOTHER, python, *made.words[1:]],
            env={**environ, "HOME": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        rows = {name: (row["problem"], row["points"]) for name, row in made.rows().items()}
    assert rows == dict.fromkeys(kinds, ("", str(FULL)))
    wait_until(lambda: not made.left(), f"nothing is left: {made.left()}")


OLD = (
    "https://maps.googleapis.com/maps/api/place/nearbysearch/json?location=34.07,-118.44&radius=9000&key=mine"
)
NEW = "https://places.googleapis.com/v1/places:searchNearby"
WITH_AIOHTTP = f"""
import aiohttp, asyncio

async def ask():
    async with aiohttp.ClientSession() as session, session.get({OLD!r}) as answer:
        print(await answer.text())

asyncio.run(ask())
"""
BY_LIBRARY = {
    "urllib": ["python3", "-c", f"import urllib.request as r; print(r.urlopen({OLD!r}).read().decode())"],
    "aiohttp": [sys.executable, "-c", WITH_AIOHTTP],
    "curl": ["curl", "-sS", OLD],
    "node": ["node", "-e", f"fetch({OLD!r}).then((answer) => answer.text()).then(console.log)"],
    "new": [
        *(
            "curl",
            "-sS",
            NEW,
            "-H",
            "X-Goog-Api-Key: mine",
            "-H",
            "X-Goog-FieldMask: places.displayName",
            "--json",
        ),
        '{"locationRestriction": {"circle": {"center": {"latitude": 34.07, "longitude": -118.44}, "radius": 9000}}}',
    ],
}


def test_herds_with_googles_urls_in_them_reach_a_stand_in(tmp_path: Path) -> None:
    """By each library that docs/grading.md names, but requests."""
    made = Class(tmp_path)
    for name, words in BY_LIBRARY.items():
        asks = f"import subprocess\nfound = subprocess.run({words!r}, capture_output=True, text=True)\n"
        refuses = "if 'Beverly Hills' not in found.stdout: sys.exit(f'NO {found}'[-200:])\n"
        a_class.make(made.submissions / name, a_class.Kind(asks + refuses))
    names_google = a_class.Kind(f"URL = {OLD!r}", fault="ignores-the-bound")
    a_class.make(made.submissions / "wrong", names_google)
    done = subprocess.run(
        [*made.words, "--only", "places"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PROXYHERD_GAZETTEER": str(gazetteer_file())},
    )
    rows = made.rows()
    assert {name: row["problem"] for name, row in rows.items()} == dict.fromkeys(
        [*BY_LIBRARY, "wrong"], ""
    ), done
    # The stand-in can be reached, so what is wrong about places is a fault all the same.
    wanted = {**dict.fromkeys(BY_LIBRARY, "20"), "wrong": "16"}
    assert {name: (row["places"], row["open"]) for name, row in rows.items()} == {
        name: (points, "0") for name, points in wanted.items()
    }
    assert not (made.output / ".google").exists()


def test_our_herd_is_judged_at_the_addresses_of_its_file_and_the_others_options_reach_the_grader(
    tmp_path: Path,
) -> None:
    """Options of all kinds: flags, lists, files, numbers. Logs are those in the submission's folder."""
    folder = tmp_path / "submissions/ours"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "deploy/grading/server.py", folder)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proxyherd", "--config", str(ROOT / "deploy/herd.toml"), "grade"),
            *(
                "--batch",
                "submissions",
                "--output",
                "grades",
                "--start",
                f"{sys.executable} server.py {{name}}",
            ),
            *(
                "--show",
                str(ROOT),
                "--show",
                sys.prefix,
                "--logs",
                "var/log/{name}.log",
                "--profile",
                "assignment",
            ),
            *("--only", "logs", "--only", "times", "--skip", "regained"),
            *("--env", "PROXYHERD_GAZETTEER=none", "--deadline", "60"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "grades/ours/result.json").read_text())
    assert set(record["report"]["servers"]) == {"Bailey", "Bona", "Campbell", "Clark", "Jaquez"}
    assert {one["id"].split(".")[0] for one in record["report"]["checks"]} == {"logs", "times"}
    assert record["report"]["rubric"] != "The client protocol"
    assert set(record["report"]["starts"]) == set(record["report"]["servers"])


def test_without_a_sandbox_it_says_what_is_not_bounded_and_kills_what_it_started(tmp_path: Path) -> None:
    ports = {name: free_port() for name in a_class.PORTS}
    made = Class(tmp_path, ports)
    a_class.make(made.submissions / "a", a_class.Kind(fault="own-log"), ports)
    bare = tmp_path / "bin"
    bare.mkdir()
    refused = subprocess.run(
        made.words, capture_output=True, text=True, check=False, env={"PATH": str(bare), "HOME": "/root"}
    )
    assert refused.returncode == 2
    assert "apt install bubblewrap" in refused.stderr
    assert "these are not bounded: the network" in refused.stderr
    done = made.grade("--unsandboxed", "--show", str(tmp_path), "--only", "logs")
    assert done.returncode == 0, "points that are open are no faults"
    assert int(made.rows()["a"]["open"]) > 0
    assert "not bounded: the network" in (made.output / "results.html").read_text()
    assert made.left() == []


def test_names_and_folders_that_cannot_be_used_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    made = Class(tmp_path)
    a_class.make(made.submissions / "<b> \x1b[31m", a_class.KINDS["honest"])
    (made.submissions / os.fsdecode(b"\xff")).mkdir()
    (made.submissions / "broken.zip").write_bytes(b"PK")
    (made.submissions / "lone.py").write_text("raise SystemExit('I am alone')")
    done = made.grade()
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    rows = made.rows()
    assert rows.pop("<b> \x1b[31m")["points"] == str(FULL)
    assert rows.pop("lone.py")["problem"].endswith("has ended at its start; it printed last: I am alone")
    assert {name: row["problem"] for name, row in rows.items()} == {
        "\ufffd": "its name is not UTF-8; rename it",
        "broken.zip": f"not started: {made.submissions}/broken.zip: the archive cannot be unpacked: File is not a zip file",
    }


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--json", "x"], "leave out --json"),
        (["--directory", "/"], "leave out --directory"),
        (["--output", "submissions/x"], "lies in the folder of the submissions"),
        (["--only", "what"], "Invalid value for '--only'"),
        (["--start", ""], "--batch needs --start"),
        (["--stop", "SIGTERM", "--start", ""], "--stop does nothing without --start"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_graded(tmp_path: Path, more: list[str], reason: str) -> None:
    made = Class(tmp_path)
    a_class.make(made.submissions / "a", a_class.KINDS["honest"])
    done = subprocess.run(
        [*made.words, *more], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert not made.gradings()
