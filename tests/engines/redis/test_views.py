"""Who is master of what, read from what real nodes have answered to CLUSTER NODES."""

from __future__ import annotations

import pytest

from proxyherd.config.address import Address
from proxyherd.engines.redis.layout import TAGS
from proxyherd.engines.redis.views import Claim, View, merge_views, parse_view

ASKED = Address("10.0.0.9", 7_009)


def host(port: int, name: str = "127.0.0.1") -> Address:
    return Address(name, port)


PLAIN = """\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 127.0.0.1:30003@31003 master - 0 1426238318243 3 connected 10923-16383
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460
"""  # Redis 6 and 7.0, no host names


def test_masters_claim_their_slots_and_all_nodes_can_be_asked() -> None:
    view = parse_view(PLAIN, ASKED, by_name=False)
    assert view.nodes == tuple(map(host, (30_004, 30_002, 30_003, 30_001)))
    assert view.claims == (
        Claim(2, host(30_002), ((5_461, 10_922),)),
        Claim(3, host(30_003), ((10_923, 16_383),)),
        Claim(1, host(30_001), ((0, 5_460),)),
    )


@pytest.mark.parametrize(
    "names", [",node1.example.com", ",node1.example.com,shard-id=69bc", ",,shard-id=69bc", ","]
)
def test_a_host_name_counts_where_certificates_are_made_out_to_it(names: str) -> None:
    line = f"a 10.0.0.1:7001@17001{names} master - 0 0 7 connected 0-16383\n"
    name = names.split(",")[1]
    assert parse_view(line, ASKED, by_name=False).nodes == (host(7_001, "10.0.0.1"),)
    assert parse_view(line, ASKED, by_name=True).nodes == (host(7_001, name or "10.0.0.1"),)


def test_a_node_that_does_not_know_its_own_host_has_the_one_it_was_asked_at() -> None:
    line = "a :7001@17001 myself,master - 0 0 7 connected 0-16383\n"
    assert parse_view(line, ASKED, by_name=True).claims[0].address == host(7_001, "10.0.0.9")


def test_an_ipv6_address_is_read_whole() -> None:
    line = "a ::1:7001@17001 master - 0 0 7 connected 0\n"
    assert parse_view(line, ASKED, by_name=False).claims == (Claim(7, host(7_001, "::1"), ((0, 0),)),)


@pytest.mark.parametrize("flags", ["master,fail", "master,fail?", "master,fail?,nofailover"])
def test_a_master_that_seems_to_have_failed_is_not_asked_and_keeps_its_claim(flags: str) -> None:
    line = f"a 10.0.0.1:7001@17001 {flags} - 0 0 7 disconnected 0-5460\n"
    view = parse_view(line, ASKED, by_name=False)
    assert view.nodes == ()
    assert view.claims == (Claim(7, host(7_001, "10.0.0.1"), ((0, 5_460),)),)


@pytest.mark.parametrize(
    "line",
    [
        "a :0@0 master,noaddr - 0 0 7 disconnected 0-5460",
        "a 10.0.0.1:7001@17001 master,noaddr - 0 0 7 disconnected 0-5460",
        "a :0@0,, slave,fail,noaddr b 0 0 7 disconnected",
        "a 10.0.0.1:7001@17001 handshake - 0 0 0 connected",
    ],
)
def test_a_node_without_an_address_and_a_stranger_count_for_nothing(line: str) -> None:
    assert parse_view(line + "\n", ASKED, by_name=False) == View((), ())


def replicated(flags: str) -> str:
    """What a master says that has one replica, and of which another node is a replica."""
    return (
        "a 10.0.0.1:7001@17001 myself,master - 0 0 7 connected 0-92\n"
        f"b 10.0.0.2:7001@17001 {flags} a 0 0 7 connected\n"
        "c 10.0.0.3:7001@17001 slave d 0 0 7 connected\n"
    )


@pytest.mark.parametrize("flags", ["slave", "slave,fail?", "slave,nofailover"])
def test_a_node_tells_who_it_is_and_its_own_replicas(flags: str) -> None:
    view = parse_view(replicated(flags), ASKED, by_name=False)
    assert view.myself == "a"
    assert view.replicas == (host(7_001, "10.0.0.2"),)


@pytest.mark.parametrize("flags", ["slave,fail", "slave,noaddr", "handshake"])
def test_a_replica_that_has_failed_is_none(flags: str) -> None:
    assert parse_view(replicated(flags), ASKED, by_name=False).replicas == ()


@pytest.mark.parametrize(
    ("rest", "serves"),
    [
        ("master - 0 0 7 connected 0-92", True),
        ("master,fail? - 0 0 7 connected 0-92", True),
        ("master,fail - 0 0 7 connected 0-92", False),
        ("master - 0 0 7 connected", False),
        ("slave b 0 0 7 connected", False),
    ],
    ids=["well", "one node doubts it", "most do", "its slots are another's", "a replica now"],
)
def test_a_master_serves_while_it_has_slots_and_most_do_not_take_it_for_dead(rest: str, serves: bool) -> None:
    view = parse_view(f"a 10.0.0.1:7001@17001 {rest}\n", ASKED, by_name=False)
    assert (view.serving == {"a"}) is serves


def test_slots_on_their_way_stay_with_who_has_them() -> None:
    text = (
        "a 10.0.0.1:7001@17001 myself,master - 0 0 7 connected 0-92 93 95-100 [93->-67ed2db8d677] [77->-292f8b36]\n"
        "b 10.0.0.2:7001@17001 master - 0 0 8 connected [93-<-e7d1eecce10f]\n"
    )
    view = parse_view(text, ASKED, by_name=False)
    assert [claim.slots for claim in view.claims] == [((0, 92), (93, 93), (95, 100)), ()]


@pytest.mark.parametrize("text", ["x", "a b c\n", "\n", "ERR This instance has cluster support disabled\n"])
def test_what_is_no_such_answer_is_an_error(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_view(text, ASKED, by_name=False)


def view_of(*claims: tuple[int, int, int, int]) -> View:
    """Of epoch, port, first and last slot of each claim."""
    return View((), tuple(Claim(epoch, host(port), ((first, last),)) for epoch, port, first, last in claims))


def test_the_greatest_epoch_has_the_slot_whoever_says_it_and_in_any_order() -> None:
    cut_off = view_of((1, 7_001, 0, 8_191), (2, 7_002, 8_192, 16_383))
    rest = view_of((5, 7_003, 0, 8_191), (2, 7_002, 8_192, 16_383))
    for views in ([cut_off, rest], [rest, cut_off]):
        assert merge_views(views) == [host(7_003)] * (TAGS // 2) + [host(7_002)] * (TAGS // 2)


def test_a_tag_that_nobody_claims_has_no_master() -> None:
    assert merge_views([]) == [None] * TAGS
    assert merge_views([view_of((0, 7_001, 0, 8_191))]) == [host(7_001)] * (TAGS // 2) + [None] * (TAGS // 2)
