"""`proxyherd places`: the configured provider asked by hand, of the stand-in for Google and offline."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gazetteer_file import gazetteer_file
from places_sim import simulator_in_thread

from proxyherd import cli
from proxyherd.standin.app import Faults


def run(*arguments: str | Path, env: dict[str, str | None] | None = None) -> Result:
    clean = {"PROXYHERD_CONFIG": None, "GOOGLE_PLACES_API_KEY": None, "CREDENTIALS_DIRECTORY": None}
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], env={**clean, **(env or {})})


def places_herd(folder: Path, **keys: str) -> Path:
    file = folder / "herd.toml"
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    clark = 'Clark = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }'
    file.write_text("\n".join(["[servers]", clark, "[places]", *lines, ""]))
    return file


def test_places_asks_the_provider_and_says_what_it_took(tmp_path: Path) -> None:
    with simulator_in_thread(key="a-key") as sim:
        (tmp_path / "key").write_text("a-key\n")
        for provider, path in (("google", "nearbysearch"), ("google-new", "searchNearby")):
            herd = places_herd(tmp_path, provider=provider, base_url=sim.url, key_file="key")
            result = run("--config", herd, "places", "48.8566,2.3522", "10", "--limit", "3")
            assert result.exit_code == 0, result.output
            *found, last = result.output.splitlines()
            assert len(found) == 3
            assert found[0] == "  Paris  (France)"
            summary = rf"{provider}: OK, 3 results, \d+\.\d{{3}} s, 1 calls, about 0\.032 US dollars"
            assert re.fullmatch(summary, last)
            assert path in sim.requests[-1].path
        assert len(sim.requests) == 2


def test_places_makes_one_call_and_says_why_it_failed(tmp_path: Path) -> None:
    with simulator_in_thread(Faults(errors=1.0)) as sim:
        herd = places_herd(tmp_path, provider="google", base_url=sim.url)
        result = run("--config", herd, "places", "1,1", "10", env={"GOOGLE_PLACES_API_KEY": "a-key"})
        assert result.exit_code == 1
        assert "HTTP 500" in result.output
        assert "google: UNKNOWN_ERROR, 0 results" in result.output
        assert "1 calls, about 0.000 US dollars" in result.output
        assert len(sim.requests) == 1


@pytest.mark.parametrize("arguments", [("0",), ("0.00", "--limit", "3"), ("10", "--limit", "0")])
def test_places_asks_nobody_for_nothing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with simulator_in_thread(key="a-key") as sim:
        herd = places_herd(tmp_path, provider="google", base_url=sim.url)
        result = run("--config", herd, "places", "1,1", *arguments, env={"GOOGLE_PLACES_API_KEY": "a-key"})
        assert result.exit_code == 0
        assert "google: ZERO_RESULTS, 0 results" in result.output
        assert sim.requests == []


def test_places_prints_json_alone_on_stdout(tmp_path: Path) -> None:
    herd = places_herd(tmp_path, provider="gazetteer")
    result = run(
        "--config", herd, "places", "+48.8566,-2.3522", "50", "--json", "--gazetteer", gazetteer_file()
    )
    assert json.loads(result.stdout)["status"] == "OK"
    assert result.stderr.startswith("gazetteer: OK, ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["91,1", "5"], "'91,1' is not two decimal degrees"),
        (["1", "5"], "is not two"),
        (["1,1,1", "5"], "is not two"),
        (["1e1,1", "5"], "is not two"),
        (["1,1", "50.1"], "no number of kilometres from 0 to 50"),
        (["1,1", "1 1"], "no number of kilometres"),
        (["1,1", "5", "--limit", "21"], "--limit"),
    ],
)
def test_places_is_particular_about_its_usage(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = run("--config", places_herd(tmp_path), "places", *arguments)
    assert result.exit_code == 2
    assert words in result.output
