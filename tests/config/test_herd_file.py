"""The herd's file: each mistake in it is told with its whole key and what to do, and what fits is read as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, load, parse

FILE = Path("herd.toml")
TWO = """
edges = [["Ann", "Bob"]]
[servers.Ann]
clients = "127.0.0.1:1"
peers = "127.0.0.1:2"
admin = "127.0.0.1:3"
[servers.Bob]
clients = ["127.0.0.1:4", "[::1]:4"]
peers = "bob.example:5"
admin = "127.0.0.1:6"
"""


def two(old: str = "", new: str = "", more: str = "") -> Herd:
    """Return a herd of two whose file differs in one place."""
    assert old in TWO
    return parse(TWO.replace(old, new, 1) + more, FILE)


def refused(old: str = "", new: str = "", more: str = "") -> str:
    """Return why a herd's file that differs in one place is refused, without the file's name."""
    with pytest.raises(ConfigError) as refusal:
        two(old, new, more)
    file, _, why = str(refusal.value).partition(": ")
    assert file == "herd.toml"
    return why


def test_a_file_is_read_as_it_stands() -> None:
    herd = two()
    assert herd.file == FILE
    assert list(herd.servers) == ["Ann", "Bob"]
    assert herd.edges == (("Ann", "Bob"),)
    ann, bob = herd.servers.values()
    assert (ann.name, ann.clients, ann.peers, ann.admin) == (
        "Ann",
        (Address("127.0.0.1", 1),),
        (Address("127.0.0.1", 2),),
        (Address("127.0.0.1", 3),),
    )
    assert bob.clients == (Address("127.0.0.1", 4), Address("::1", 4))
    assert bob.peers == (Address("bob.example", 5),)
    assert (ann.neighbours, bob.neighbours) == (("Bob",), ("Ann",))


@pytest.mark.parametrize("text", ["", "::1:1", "[1:2]:5"])
def test_what_is_no_address_is_told_with_its_key(text: str) -> None:
    assert refused('"bob.example:5"', f'"{text}"').startswith(f"key servers.Bob.peers: {text!r}")


def test_the_web_port_and_what_stands_in_for_google_are_named_with_their_keys_where_they_are_the_same() -> (
    None
):
    admin, places = 'admin = "127.0.0.1:3"', '[places]\nbase_url = "http://127.0.0.1:10300"'
    assert two(more=places).places.base_url == "http://127.0.0.1:10300"  # the web port is off
    assert refused(admin, f'{admin}\nweb = "127.0.0.1:10300"', places).startswith(
        "keys places.base_url and servers.Ann.web: both have port 10300 of this machine; "
    )
    assert refused(admin, f'{admin}\nweb = "localhost:1"') == (
        "keys servers.Ann.clients and servers.Ann.web: 127.0.0.1:1 and localhost:1 overlap; give each its own port"
    )


def test_an_address_is_read_in_its_one_spelling() -> None:
    assert two("bob.example:5", "[2001:DB8:0:0::1]:5").servers["Bob"].peers == (Address("2001:db8::1", 5),)


@pytest.mark.parametrize("key", ["clients", "peers", "admin"])
def test_a_server_has_at_least_one_address_of_each_kind(key: str) -> None:
    lines = {"clients": '["127.0.0.1:4", "[::1]:4"]', "peers": '"bob.example:5"', "admin": '"127.0.0.1:6"'}
    assert refused(f"{key} = {lines[key]}", f"{key} = []") == (
        f'key servers.Bob.{key}: no address; give at least one, such as "127.0.0.1:10000"'
    )
    assert refused(f"{key} = {lines[key]}", "") == f"key servers.Bob.{key}: is missing; add it"


@pytest.mark.parametrize(("first", "port"), [("clients", 1), ("peers", 2), ("admin", 3)])
@pytest.mark.parametrize(
    ("second", "there"), [("clients", '"[::1]:4"'), ("peers", '"bob.example:5"'), ("admin", '"127.0.0.1:6"')]
)
def test_two_listeners_have_no_address_in_common(first: str, port: int, second: str, there: str) -> None:
    assert refused(there, f'"127.0.0.1:{port}"') == (
        f"keys servers.Ann.{first} and servers.Bob.{second}: both have 127.0.0.1:{port}; give each its own port"
    )


@pytest.mark.parametrize("name", ["A", "a" * 63, "A-b_9"])
def test_what_is_a_name(name: str) -> None:
    assert name in parse(TWO.replace("Bob", name), FILE).servers


@pytest.mark.parametrize("name", ["", "9a", "a" * 64, "a.b", "\xe9", "a b", "-a", "_a", "a\\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a name is a letter and up to 62 letters, digits, '-' and '_'$"):
        parse(TWO.replace('"Bob"', f'"{name}"').replace("servers.Bob", f'servers."{name}"'), FILE)


@pytest.mark.parametrize(
    ("edges", "why"),
    [
        ('["Ann", "Cid"]', "pair 2 (Ann, Cid): there is no server 'Cid'; add [servers.Cid] or drop the pair"),
        ('["Cid", "Ann"]', "pair 2 (Cid, Ann): there is no server 'Cid'; add [servers.Cid] or drop the pair"),
        ('["Bob", "Bob"]', "pair 2 (Bob, Bob): a server is no neighbour of its own; drop the pair"),
        ('["Ann", "Bob"]', "pair 2 (Ann, Bob): stands there twice; an edge goes both ways, drop one"),
        ('["Bob", "Ann"]', "pair 2 (Bob, Ann): stands there twice; an edge goes both ways, drop one"),
    ],
)
def test_an_edge_that_cannot_be_is_told_with_its_number(edges: str, why: str) -> None:
    assert refused('["Ann", "Bob"]', f'["Ann", "Bob"], {edges}') == f"key edges, {why}"


def test_islands_are_told_apart_the_largest_first() -> None:
    servers = "\n".join(
        f'[servers.{name}]\nclients = "h:{at}1"\npeers = "h:{at}2"\nadmin = "h:{at}3"'
        for at, name in enumerate("ABCDEF", 1)
    )

    def islands(*edges: str) -> list[list[str]]:
        return parse(f"edges = {[list(edge) for edge in edges]}\n{servers}", FILE).islands()

    assert islands("AF", "FC", "BD") == [["A", "C", "F"], ["B", "D"], ["E"]]
    assert islands("AB", "BC", "CD", "DE", "EF") == [list("ABCDEF")]
    assert islands() == [[name] for name in "ABCDEF"]


def test_a_server_that_is_not_there_is_told_with_those_that_are() -> None:
    herd = two()
    assert herd.server("Bob") is herd.servers["Bob"]
    with pytest.raises(ConfigError, match=r"^herd\.toml: there is no server 'Cid'; it has Ann, Bob$"):
        herd.server("Cid")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("[nonsense]\n", "key nonsense: is not known; the keys here are servers, edges, "),
        (
            "[limits]\nmax_client = 1",
            "key limits.max_client: is not known (did you mean max_clients?); the keys here are max_line_bytes, ",
        ),
        ('[limits]\nmax_clients = "1"', "key limits.max_clients: Expected `int`, got `str`"),
        ("[timing]\nbackoff_seconds = 0", "key timing.backoff_seconds: Expected `float` > 0"),
        ("[erasure]\ntombstone_seconds = 0.9", "key erasure.tombstone_seconds: Expected `float` >= 1"),
        ("[erasure]\nrewrite_seconds = 1e-9", "key erasure.rewrite_seconds: Expected `float` >= 0.1"),
        ('[log]\nlevel = "loud"', "key log.level: Invalid enum value 'loud'"),
        ('[admin]\nhosts = "h"', "key admin.hosts: Expected `array`, got `str`"),
        ("[durability]\nfsync = 1", "key durability.fsync: Expected `str`, got `int`"),
        ('[table]\nengine = "x"', "key table.engine: Invalid enum value 'x'"),
        (
            '[tls]\nclients_key = "k"',
            "key tls.clients_certificate: is missing; clients_certificate, clients_key go",
        ),
        ('[tls]\nclients_certificate = "c"', "key tls.clients_key: is missing; "),
        (
            '[tls]\npeers_crl = "l"',
            "key tls.peers_authority: is missing; it has signed the list in peers_crl",
        ),
        ('[tls]\npeers_key = "k"', "key tls.peers_authority: is missing; "),
        ('[tls]\npeers_key = "k"\npeers_authority = "a"', "key tls.peers_certificate: is missing; "),
        (
            "[servers.Cid]\nport = 1",
            "key servers.Cid.port: is not known; the keys here are clients, admin, peers",
        ),
        ("[servers.Cid]\n", "key servers.Cid.clients: is missing; add it"),
        ('[servers.Cid]\nclients = 1\nadmin = "h:1"', "key servers.Cid.clients: Expected `str | array`"),
    ],
)
def test_a_key_that_does_not_fit_is_told_with_its_table(more: str, why: str) -> None:
    assert refused(more=more).startswith(why)


def test_all_keys_of_tls_that_go_together_are_taken() -> None:
    more = "[tls]\n" + "\n".join(
        f'{key} = "x"'
        for key in ("clients_certificate", "clients_key", "peers_authority", "peers_certificate", "peers_key")
    )
    assert two(more=more).tls.peers_key == "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "key servers: is missing; add it"),
        ("[servers]", "key servers: is empty; a herd has at least one server"),
        ("a = ", "not TOML: "),
        (f"a = {'9' * 5_000}", "a number has thousands of digits; no key takes so many"),
        ("a = " + "[" * 5_000, "nested too deeply; no key of a herd's file is"),
        ("servers = 1", "key servers: Expected `object`, got `int`"),
        ("edges = [[1]]\n[servers]", "key edges[0]: Expected `array` of length 2"),
    ],
)
def test_a_file_that_is_no_herds_is_told(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(text, FILE)
    assert str(refusal.value).startswith(f"herd.toml: {why}")


def test_a_file_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "herd.toml"
    with pytest.raises(
        ConfigError, match=r"No such file or directory; name the herd's file with --config or"
    ):
        load(file)
    with pytest.raises(ConfigError, match=r"Is a directory; name the herd's file"):
        load(tmp_path)
    file.write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 at byte 2; save it as UTF-8"):
        load(file)
    file.write_bytes(b"\xef\xbb\xbf" + TWO.encode())
    assert load(file).edges == (("Ann", "Bob"),)
