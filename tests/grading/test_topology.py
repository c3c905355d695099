"""Files that say who is linked with whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from herd_process import ROOT

from proxyherd.grading import topology
from proxyherd.grading.topology import TopologyError


def load(tmp_path: Path, text: str, *names: str) -> topology.Topology:
    file = tmp_path / "graph.toml"
    file.write_text(text)
    return topology.load(file, names)


def test_edges_suffice_and_servers_need_no_keys_of_ours(tmp_path: Path) -> None:
    edges = 'edges = [["Ann", "Bob"], ["Bob", "Cid"]]\n'
    for more in ("", '[servers.Ann]\nclients = "127.0.0.1:1"\n', "[servers]\nAnn = 1\n", "port = 1\n"):
        found = load(tmp_path, edges + more, "Cid", "Bob", "Ann")
        assert found.edges == [("Ann", "Bob"), ("Bob", "Cid")]
        assert (found.one_table, found.limits.max_line_bytes) == (False, 8_192)


def test_a_file_of_ours_is_one(tmp_path: Path) -> None:
    names = ("Bailey", "Bona", "Campbell", "Clark", "Jaquez")
    assert len(topology.load(ROOT / "deploy/herd.toml", names).edges) == 6
    text = '[servers]\nAnn = {}\n[limits]\nmax_line_bytes = 2048\n[table]\nengine = "redis"\n'
    found = load(tmp_path, text, "Ann")
    assert (found.one_table, found.limits.max_line_bytes, found.edges) == (True, 2_048, [])


@pytest.mark.parametrize(
    ("text", "names", "complaint"),
    [
        ("edges = [", "Ann", "not TOML in UTF-8: "),
        ("", "Ann", "key edges: is missing; add it"),
        ('edges = "Ann Bob"', "Ann", "the key edges has pairs of names, such as"),
        ('edges = [["Ann", "Bob", "Cid"]]', "Ann", "the key edges has pairs of names, such as"),
        ('edges = [["Ann", "Bob"]]', "Ann", "has Bob too; name the address of each server"),
        ('edges = [["Ann", "Bob"]]', "Ann Bob Zoe", "there is no server 'Zoe'; it has Ann, Bob"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_remedy(
    text: str, names: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(TopologyError) as raised:
        load(tmp_path, text, *names.split())
    assert str(raised.value).startswith(f"{tmp_path}/graph.toml: ")
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        TopologyError, match="nowhere: No such file or directory; name a file with --topology"
    ):
        topology.load(tmp_path / "nowhere", ["Ann"])
