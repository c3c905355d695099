"""The OpenAPI document of the web port against a real server, by schemathesis: what it makes up is answered as the document
says, whether it fits the document or not.

A run is the same each time. For others, and longer ones:
`PROXYHERD_API_EXAMPLES=1000 PROXYHERD_API_SEED=7 pytest tests/system/test_openapi.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from gazetteer_file import gazetteer_file
from herd_process import ROOT
from web_wire import running_web_server

EXAMPLES = os.environ.get("PROXYHERD_API_EXAMPLES", "5")
SEED = os.environ.get("PROXYHERD_API_SEED", "1")
SUPPORT = ROOT / "tests/support"


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with running_web_server(gazetteer=gazetteer_file()) as server:
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("schemathesis"), "--no-color"),
                *("--config-file", SUPPORT / "schemathesis.toml"),
                *("run", f"http://127.0.0.1:{server.web_port}/v1/openapi.json"),
                *("--seed", SEED, "--max-examples", EXAMPLES, "--generation-database", "none"),
                *("--continue-on-failure", "--suppress-health-check", "all"),
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(SUPPORT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        tested = re.search(r"Selected: (\d+)/(\d+)\n +Tested: (\d+)", done.stdout)
        assert tested is not None, done.stdout
        selected, known, run = map(int, tested.groups())
        assert (selected, run) == (known - 2, known - 2)  # no WebSocket, and no stream
        faults = server.events("internal_error")
        assert faults == []
