"""The peer link's state machine, on a clock that the tests turn by hand.

The handshake is spoken here by hand too, as docs/ describes it: whoever implements the protocol anew must get
on with this link.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.core.handshake import NONCE_BYTES, REVOKED, State, Terms
from proxyherd.core.link import _FEW_BYTES, SILENT_HEARTBEATS, Link
from proxyherd.core.messages import CACHED_BYTES, NANOSECONDS, At, Malformed, parse_at, recent_parser
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Changed,
    Clock,
    Digests,
    Done,
    Erased,
    LinkEvent,
    Misspoken,
    PeerMessage,
    Proved,
    Updates,
    parse_message,
    write_message,
)
from proxyherd.core.tombstones import Tombstone

SECRET, OTHER_SECRET = b"s" * 32, b"o" * 32
DIALLER_NONCE, LISTENER_NONCE = b"\x01" * NONCE_BYTES, b"\x02" * NONCE_BYTES
LINE_BYTES = 8_448
HEARTBEAT, HANDSHAKE = 0.5, 1.0
ALL = 1_000_000
LIVE: list[LinkEvent] = [Proved(), Clock(0)]
FINGERPRINT = b"0123456789abcdef"
TERMS = b"TERMS 1000000000 0 %b\n" % FINGERPRINT
NEIGHBOURS = {"Bailey": ("Bona", "Campbell"), "Bona": ("Bailey", "Clark")}


def terms(name: str, *secrets: bytes) -> Terms:
    return Terms(
        name=name,
        neighbours=frozenset(NEIGHBOURS[name]),
        secrets=secrets or (SECRET,),
        line_bytes=LINE_BYTES,
        heartbeat=HEARTBEAT,
        handshake=HANDSHAKE,
        lead=NANOSECONDS,
        fingerprint=FINGERPRINT,
    )


def dialler(*secrets: bytes, nonce: bytes = DIALLER_NONCE, now: float = 0) -> Link:
    return Link(terms("Bailey", *secrets), dial="Bona", nonce=nonce, now=now)


def listener(*secrets: bytes, nonce: bytes = LISTENER_NONCE, now: float = 0) -> Link:
    return Link(terms("Bona", *secrets), dial=None, nonce=nonce, now=now)


def hear(link: Link, data: bytes, now: float = 0) -> list[LinkEvent]:
    link.receive_data(data, now)
    return link.events(ALL)


def talk(left: Link, right: Link, now: float = 0) -> tuple[list[LinkEvent], list[LinkEvent]]:
    """Carry what both have to say until neither has anything; return what either heard."""
    heard: tuple[list[LinkEvent], list[LinkEvent]] = ([], [])
    while (there := left.data_to_send(now)) + (back := right.data_to_send(now)):
        for link, data, events in ((right, there, heard[1]), (left, back, heard[0])):
            if data:
                events.extend(hear(link, data, now))
    return heard


def linked() -> tuple[Link, Link]:
    left, right = dialler(), listener()
    assert talk(left, right) == (LIVE, LIVE)
    return left, right


def closed(link: Link) -> bool:
    return link.state is State.CLOSED


def at(client: str = "kiwi", time: str = "5") -> bytes:
    return f"AT Clark +0.000000000 {client} +1+1 {time}".encode()


def update(client: str = "kiwi", time: str = "5") -> At:
    parsed = parse_at(at(client, time))
    assert parsed is not None
    return parsed


# The handshake spoken by hand. --------------------------------------------------------------------------------


def proof(
    role: bytes,
    *,
    secret: bytes = SECRET,
    offered: bytes = b"1",
    version: bytes = b"1",
    names: tuple[bytes, bytes] = (b"Bailey", b"Bona"),
    nonces: tuple[bytes, bytes] = (DIALLER_NONCE, LISTENER_NONCE),
) -> bytes:
    """The HMAC over role, label, versions, names and nonces, those of the dialler first."""
    spoken = [role, b"proxyherd peer link", offered, version, *names, *(one.hex().encode() for one in nonces)]
    return hmac.new(secret, b"\n".join(spoken), hashlib.sha256).hexdigest().encode()


def hello(
    name: bytes = b"Bailey",
    to: bytes = b"Bona",
    nonce: bytes = DIALLER_NONCE.hex().encode(),
    versions: bytes = b"1",
) -> bytes:
    return b"PROXYHERD %b %b %b %b\n" % (versions, name, to, nonce)


def reply(**changed: bytes) -> bytes:
    parts = {"name": b"Bona", "to": b"Bailey", "nonce": LISTENER_NONCE.hex().encode(), **changed}
    return hello(**parts)


def assert_refused(link: Link, why: str) -> None:
    assert link.state is State.CLOSED
    assert why in link.reason
    assert not link.proved
    assert link.data_to_send(0).splitlines()[-1].startswith(b"REFUSED ")


def test_both_prove_the_secret_the_dialler_first_and_it_never_crosses_the_wire() -> None:
    left, right = dialler(), listener()
    assert right.data_to_send(0) == b""
    first = left.data_to_send(0)
    assert first == hello(versions=b"2,1")
    assert hear(right, first) == []
    second = right.data_to_send(0)
    assert second == reply(versions=b"2")
    assert hear(left, second) == []
    assert (left.state, right.state) == (State.PROVING, State.PROVING)
    third = left.data_to_send(0)
    both: dict[str, Any] = {"offered": b"2,1", "version": b"2"}
    assert third == b"PROOF " + proof(b"dialler", **both) + b"\n", "a stranger learns no terms"
    assert hear(right, third) == []
    assert (right.state, left.state) == (State.AGREEING, State.PROVING)
    fourth = right.data_to_send(0)
    assert fourth == b"PROOF " + proof(b"listener", **both) + b"\n" + TERMS
    assert hear(left, fourth) == LIVE
    assert (right.state, left.state) == (State.AGREEING, State.LIVE)
    fifth = left.data_to_send(0)
    assert fifth == TERMS
    assert hear(right, fifth) == LIVE
    assert right.state is State.LIVE
    assert (left.peer, right.peer) == ("Bona", "Bailey")
    for said in (first, second, third, fourth, fifth):
        assert SECRET not in said
        assert SECRET.hex().encode() not in said


@pytest.mark.parametrize("end", [dialler, listener])
def test_a_handshake_ends_the_same_byte_by_byte(end: Callable[[], Link]) -> None:
    link, other = end(), (listener if end is dialler else dialler)()
    events: list[LinkEvent] = []
    while (there := link.data_to_send(0)) + (back := other.data_to_send(0)):
        for byte in back:
            events += hear(link, bytes([byte]))
        hear(other, there)
    assert events == LIVE
    assert link.state is State.LIVE


def test_the_first_version_is_spoken_with_who_knows_no_other() -> None:
    left, right = dialler(), listener()
    hear(left, reply())
    said = left.data_to_send(0).splitlines(keepends=True)
    assert said[1:] == [b"PROOF " + proof(b"dialler", offered=b"2,1") + b"\n"]
    assert hear(left, b"PROOF " + proof(b"listener", offered=b"2,1") + b"\n") == [Proved()]
    assert (left.is_old, left.data_to_send(0)) == (True, b"")
    hear(right, hello())
    assert right.data_to_send(0) == reply()
    assert hear(right, b"PROOF " + proof(b"dialler") + b"\n") == [Proved()]
    assert (right.is_old, right.data_to_send(0)) == (True, b"PROOF " + proof(b"listener") + b"\n")
    assert not any(link.is_old for link in linked())


def test_the_first_version_is_refused_by_a_server_that_holds_tombstones() -> None:
    left = Link(terms("Bailey"), dial="Bona", nonce=DIALLER_NONCE, now=0, takes_old=False)
    right = Link(terms("Bona"), dial=None, nonce=LISTENER_NONCE, now=0, takes_old=False)
    hear(left, reply())
    assert_refused(left, "Bona speaks version 1 of the peer protocol, which cannot erase")
    hear(right, hello())
    assert_refused(right, "Bailey speaks version 1 of the peer protocol, which cannot erase")
    assert "upgrade it" in right.reason


def test_servers_with_other_terms_refuse_each_other_in_words_that_name_the_key_and_both_values() -> None:
    ours = terms("Bailey")
    left = Link(msgspec.structs.replace(ours, lead=2_500_000_000), dial="Bona", nonce=DIALLER_NONCE, now=0)
    right = listener()
    assert talk(left, right) == ([], [])
    assert left.reason == (
        "Bona has max_clock_lead_seconds = 1 in [limits], this server 2.5; "
        "give both the same herd's file, and restart them"
    )
    assert not left.proved
    assert right.reason.startswith("refused by the other: Bailey") or "Bailey has max_clock" in right.reason


@pytest.mark.parametrize(
    "said",
    [
        b"TERMS 1000000000\n",
        b"TERMS 1000000000 0\n",
        TERMS.replace(b"\n", b" 0\n"),
        TERMS.replace(b" 0 ", b" x "),
        TERMS.replace(b" 0 ", b" 1e9 "),
        TERMS.replace(b" 0 ", b" -1 "),
        TERMS.replace(b" 1000000000 ", b" -1 "),
        TERMS.replace(b"f\n", b"\n"),
        TERMS.replace(b"f\n", b"ff\n"),
        TERMS.replace(b"f\n", b"F\n"),
        TERMS.replace(b"f\n", b"g\n"),
        TERMS.replace(b"\n", b" on_full\n"),
        TERMS.replace(b"\n", b" on_full=\n"),
        TERMS.replace(b"\n", b" =evict\n"),
        TERMS.replace(b"\n", b" on_full=evict \n"),
        b"BEAT\n",
        at() + b"\n",
    ],
)
def test_what_is_no_terms_ends_the_connection_unbelieved(said: bytes) -> None:
    right = listener()
    hear(right, hello(versions=b"2"))
    assert (
        hear(right, b"PROOF " + proof(b"dialler", offered=b"2", version=b"2") + b"\n" + said + at() + b"\n")
        == []
    )
    assert closed(right)
    assert not right.proved


def test_servers_with_other_keys_of_the_table_link_and_both_know_it() -> None:
    ours = terms("Bailey")
    other = msgspec.structs.replace(ours, fingerprint=FINGERPRINT[::-1])
    left, right = Link(other, dial="Bona", nonce=DIALLER_NONCE, now=0), listener()
    assert talk(left, right) == (LIVE, LIVE)
    assert left.other_key
    assert right.other_key
    assert not any(link.other_key for link in linked())


SETTINGS = ("tombstone_seconds", "60"), ("on_full", "evict"), ("max_clients", "9")


@pytest.mark.parametrize(
    ("theirs", "differing"),
    [
        (SETTINGS, ("", "")),
        (SETTINGS[:1], ("", "")),
        ((*SETTINGS, ("max_answers", "1")), ("", "")),
        (
            (("tombstone_seconds", "61"), *SETTINGS[1:]),
            ("tombstone_seconds = 60, this server 61", "tombstone_seconds = 61, this server 60"),
        ),
        (
            (SETTINGS[0], ("max_clients", "10"), ("on_full", "refuse")),
            (
                "max_clients = 9, this server 10, on_full = evict, this server refuse",
                "on_full = refuse, this server evict, max_clients = 10, this server 9",
            ),
        ),
    ],
    ids=["the same", "fewer", "more", "one other", "two others"],
)
def test_servers_with_other_settings_link_and_both_know_which(
    theirs: tuple[tuple[str, str], ...], differing: tuple[str, str]
) -> None:
    left = Link(
        msgspec.structs.replace(terms("Bailey"), settings=theirs), dial="Bona", nonce=DIALLER_NONCE, now=0
    )
    ours = msgspec.structs.replace(listener().terms, settings=SETTINGS)
    right = Link(ours, dial=None, nonce=LISTENER_NONCE, now=0)
    assert talk(left, right) == (LIVE, LIVE)
    assert (left.differing, right.differing) == differing


def test_a_setting_of_a_neighbour_is_made_fit_for_the_log() -> None:
    ours = msgspec.structs.replace(listener().terms, settings=SETTINGS)
    right = Link(ours, dial=None, nonce=LISTENER_NONCE, now=0)
    hear(right, hello(versions=b"2"))
    said = TERMS.replace(b"\n", b" %b=x on_full=\x1b%b\n" % (b"k" * 210, b"y" * 200))
    hear(right, b"PROOF " + proof(b"dialler", offered=b"2", version=b"2") + b"\n" + said)
    assert right.differing.startswith("on_full = \\x1byyy")
    assert right.differing.endswith("yyy, this server evict")
    assert len(right.differing) < 250


def test_the_first_version_tells_no_key_of_the_table() -> None:
    right = listener()
    hear(right, hello())
    hear(right, b"PROOF " + proof(b"dialler") + b"\n")
    assert (right.proved, right.other_key, right.differing) == (True, False, "")


def test_each_side_tells_its_clock() -> None:
    left, right = dialler(), listener()
    hear(right, left.data_to_send(0))
    hear(left, right.data_to_send(0))
    right.receive_data(left.data_to_send(0), 0)
    assert right.events(ALL, 17) == []
    left.receive_data(right.data_to_send(0), 0)
    assert left.events(ALL, 23) == [Proved(), Clock(17)]
    assert hear(right, TERMS.replace(b" 0 ", b" 23 ")) == [Proved(), Clock(23)]
    assert hear(right, b"CLOCK 29\n") == [Clock(29)]


def test_what_comes_right_behind_a_proof_is_heard_after_it() -> None:
    right = listener()
    hear(right, hello())
    behind = b"PROOF " + proof(b"dialler") + b"\n" + at() + b"\n"
    assert hear(right, behind) == [Proved(), Updates([update()], caught_up=False)]


def test_a_long_line_right_behind_a_proof_is_judged_by_the_limit_of_a_live_link() -> None:
    right, long = listener(), at("k" * 4_000)
    hear(right, hello())
    assert hear(right, b"PROOF " + proof(b"dialler") + b"\n" + long) == [Proved()]
    assert hear(right, b"\n") == [Updates([update("k" * 4_000)], caught_up=False)]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_waits_behind_the_lines_asked_for_is_told(most: int) -> None:
    right = listener()
    right.receive_data(hello() + b"PROOF " + proof(b"dialler") + b"\n" + (at() + b"\n") * 3, 0)
    events: list[LinkEvent] = []
    for _ in range(20):
        events += right.events(most)
        if not right.more:
            break
    assert sum(len(event.ats) for event in events if isinstance(event, Updates)) == 3


def test_a_handshake_takes_no_more_lines_than_asked_for() -> None:
    right = listener()
    right.receive_data(hello() + b"PROOF " + proof(b"dialler") + b"\n", 0)
    assert right.events(0) == []
    assert (right.state, right.more) == (State.HELLO, True)
    assert right.events(1) == []
    assert (right.state, right.more) == (State.PROVING, True)
    assert right.events(1) == [Proved()]


def test_each_line_of_a_handshake_is_one_of_those_asked_for() -> None:
    right = listener()
    assert not right.more
    right.receive_data(hello() + b"PROOF " + proof(b"dialler") + b"\n" + at("a") + b"\n" + at("b") + b"\n", 0)
    assert right.events(3) == [Proved(), Updates([update("a")], caught_up=False)]
    assert right.more


@pytest.mark.parametrize(("size", "why"), [(512, "no handshake; does a client"), (513, "a line without end")])
def test_a_line_of_a_handshake_has_512_bytes_at_most(size: int, why: str) -> None:
    right = listener()
    hear(right, b"x" * size + b"\n")
    assert why in right.reason


@pytest.mark.parametrize(
    ("names", "why"),
    [(None, ""), (["Bailey", "Zoe"], ""), (["Zoe", "Clark"], "Clark, Zoe"), ([], "nobody")],
)
def test_a_dialler_must_show_a_certificate_of_its_own_where_there_is_tls(
    names: list[str] | None, why: str
) -> None:
    right = listener()
    right.certified = None if names is None else frozenset(names)
    hear(right, hello())
    if why:
        assert_refused(right, f"Bailey shows a certificate of {why}")
    else:
        assert right.state is State.PROVING


def test_a_listener_refuses_a_revoked_certificate_before_anything_is_proved() -> None:
    right = listener()
    right.revoke()
    hear(right, hello())
    assert_refused(right, f"Bailey {REVOKED}")


def test_a_dialler_refuses_a_revoked_certificate_before_it_proves_anything() -> None:
    left = dialler()
    left.revoke()
    hear(left, reply())
    assert_refused(left, f"Bona {REVOKED}")


@pytest.mark.parametrize("state", [State.PROVING, State.LIVE])
def test_a_link_whose_certificate_is_revoked_ends_with_the_reason(state: State) -> None:
    left, right = dialler(), listener()
    if state is State.LIVE:
        talk(left, right)
    else:
        hear(right, hello())
    assert right.state is state
    right.revoke()
    assert right.state is State.CLOSED
    assert right.reason == f"Bailey {REVOKED}"


def test_a_traceback_shows_no_secret() -> None:
    assert repr(terms("Bona")) == "<terms of Bona>"


def test_a_wrong_secret_is_refused_by_the_listener_in_words_that_name_the_remedy() -> None:
    left, right = dialler(OTHER_SECRET), listener()
    assert talk(left, right) == ([], [])
    assert right.state is left.state is State.CLOSED
    assert "Bailey does not prove the herd's secret; has it another secret file?" in right.reason
    assert "refused by the other: Bailey does not prove" in left.reason


def test_a_wrong_secret_is_refused_by_the_dialler() -> None:
    left = dialler()
    hear(left, reply())
    left.data_to_send(0)
    assert hear(left, b"PROOF " + proof(b"listener", secret=OTHER_SECRET) + b"\n") == []
    assert_refused(left, "Bona does not prove the herd's secret")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((SECRET,), (SECRET, OTHER_SECRET)),
        ((SECRET,), (OTHER_SECRET, SECRET)),
        ((OTHER_SECRET, SECRET), (SECRET, OTHER_SECRET)),
        ((SECRET, OTHER_SECRET), (OTHER_SECRET, SECRET)),
    ],
)
def test_during_a_rotation_either_secret_is_accepted(
    left: tuple[bytes, ...], right: tuple[bytes, ...]
) -> None:
    assert talk(dialler(*left), listener(*right)) == (LIVE, LIVE)


def test_a_secret_that_only_one_side_knows_yet_must_not_be_its_first() -> None:
    assert talk(dialler(OTHER_SECRET, SECRET), listener(SECRET)) == ([], [])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (hello(name=b"Mallory"), "Mallory is no neighbour that dials Bona"),
        (hello(name=b"Clark"), "Clark is no neighbour that dials Bona"),  # a neighbour, but Bona's to dial
        (hello(name=b"Bona"), "Bona is no neighbour"),
        (hello(name=b"Jaquez"), "Jaquez is no neighbour"),
        (hello(name=b""), "is no neighbour"),
        (hello(name=b"\xff\x1b[2J"), r"\xff\x1b[2J is no neighbour"),
        (hello(to=b"Clark"), "it looks for Clark, this is Bona"),
        (hello(versions=b"3"), "speaks versions 3 of the peer protocol, this server 2,1"),
        (hello(versions=b"11,10"), "speaks versions 11,10"),
        (hello(versions=b""), "speaks versions"),
        (hello(nonce=b"01" * (NONCE_BYTES - 1)), "nonce"),
        (hello(nonce=b"01" * (NONCE_BYTES + 1)), "nonce"),
        (hello(nonce=b"0G" * NONCE_BYTES), "nonce"),
        (hello(nonce=b"AB" * NONCE_BYTES), "nonce"),
        (hello(nonce=b""), "nonce"),
        (hello(nonce=LISTENER_NONCE.hex().encode()), "nonce"),
    ],
)
def test_a_listener_refuses_a_stranger_and_says_why(said: bytes, why: str) -> None:
    right = listener()
    assert hear(right, said) == []
    assert_refused(right, why)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (reply(name=b"Clark"), "Clark answers at the address of Bona"),
        (reply(name=b"Bailey"), "Bailey answers at the address of Bona"),
        (reply(to=b"Campbell"), "it looks for Campbell"),
        (reply(versions=b"3"), "it chose version 3, which was not offered"),
        (reply(versions=b"1,2"), "it chose version 1,2"),
        (reply(nonce=DIALLER_NONCE.hex().encode()), "nonce"),
        (reply(nonce=b"xyz"), "nonce"),
    ],
)
def test_a_dialler_refuses_who_answers_wrongly(said: bytes, why: str) -> None:
    left = dialler()
    left.data_to_send(0)
    assert hear(left, said) == []
    assert_refused(left, why)


@pytest.mark.parametrize(
    "said",
    [
        *(b"\n", b"IAMAT kiwi +1+1 1\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\n", at() + b"\n"),
        *(b"BEAT\n", b"DONE\n", hello()[:-1].replace(b" ", b"  ") + b"\n", b"PROXYHERD 1 Bailey Bona\n"),
        *(b"proxyherd 1 Bailey Bona " + b"01" * 32 + b"\n", b"PROOF " + proof(b"dialler") + b"\n"),
        *(hello()[:-1] + b" more\n", hello()[:-1] + b"\r\n", b"REFUSED because\n", b"x" * 513, b"x" * 5_000),
    ],
)
@pytest.mark.parametrize("end", [dialler, listener])
def test_what_is_no_greeting_ends_the_connection_unbelieved(end: Callable[[], Link], said: bytes) -> None:
    link = end()
    assert hear(link, said + at() + b"\n") == []
    assert link.state is State.CLOSED
    assert link.reason
    assert not link.proved


@pytest.mark.parametrize(
    "said",
    [
        *(b"\n", at() + b"\n", b"BEAT\n", hello(), b"PROOF\n", b"PROOF \n", b"PROOF " + b"0" * 64 + b"\n"),
        *(b"PROOF " + proof(b"dialler")[:-1] + b"\n", b"PROOF " + proof(b"dialler").upper() + b"\n"),
        *(b"PROOF " + proof(b"dialler") + b" x\n", b"PROOF \xff\n", b"PROOF " + b"0" * 600),
    ],
)
def test_what_is_no_proof_ends_the_connection_unbelieved(said: bytes) -> None:
    right = listener()
    hear(right, hello())
    assert hear(right, said + at() + b"\n") == []
    assert right.state is State.CLOSED
    assert not right.proved


@pytest.mark.parametrize(
    "changed",
    [
        {"role": b"listener"},
        {"secret": OTHER_SECRET},
        {"secret": b""},
        {"offered": b"1,2"},
        {"version": b"2"},
        {"names": (b"Bona", b"Bailey")},
        {"names": (b"Campbell", b"Bona")},
        {"nonces": (LISTENER_NONCE, DIALLER_NONCE)},
        {"nonces": (DIALLER_NONCE, DIALLER_NONCE)},
        {"nonces": (bytes(NONCE_BYTES), LISTENER_NONCE)},
    ],
)
def test_a_proof_holds_for_its_role_versions_names_and_nonces_alone(changed: dict[str, Any]) -> None:
    right = listener()
    hear(right, hello())
    right.data_to_send(0)
    assert hear(right, b"PROOF " + proof(**{"role": b"dialler", **changed}) + b"\n") == []
    assert_refused(right, "does not prove")


def test_a_listener_takes_the_best_version_of_those_offered_and_a_downgrade_is_noticed() -> None:
    right = listener()
    hear(right, hello(versions=b"3,2,1"))
    assert right.data_to_send(0) == reply(versions=b"2")
    both: dict[str, Any] = {"offered": b"3,2,1", "version": b"2"}
    assert hear(right, b"PROOF " + proof(b"dialler", **both) + b"\n" + TERMS) == LIVE
    assert right.data_to_send(0) == b"PROOF " + proof(b"listener", **both) + b"\n" + TERMS

    right = listener()
    hear(right, hello())  # somebody on the way has struck the 2 out
    assert hear(right, b"PROOF " + proof(b"dialler", offered=b"2,1") + b"\n") == []
    assert right.state is State.CLOSED


def test_a_recorded_handshake_cannot_be_replayed() -> None:
    left, right = dialler(), listener()
    first = left.data_to_send(0)
    hear(right, first)
    hear(left, right.data_to_send(0))
    second = left.data_to_send(0)
    assert hear(right, second) == []
    assert hear(left, right.data_to_send(0)) == LIVE
    third = left.data_to_send(0)
    assert hear(right, third) == LIVE

    again = listener(nonce=b"\x03" * NONCE_BYTES)
    assert hear(again, first + second + third) == []
    assert_refused(again, "does not prove")


def test_a_listeners_own_words_cannot_be_reflected() -> None:
    right = listener()
    hear(right, hello(name=b"Bailey"))
    mirrored = right.data_to_send(0)
    assert hear(listener(), mirrored) == []
    left = dialler()
    said = left.data_to_send(0)
    assert hear(left, said) == []
    assert left.state is State.CLOSED


def test_a_diallers_proof_cannot_be_reflected_to_it() -> None:
    left = dialler()
    hear(left, reply())
    _, own = left.data_to_send(0).splitlines(keepends=True)
    assert own.startswith(b"PROOF ")
    assert hear(left, own) == []
    assert_refused(left, "does not prove")


def test_a_proof_obtained_from_a_third_server_is_worth_nothing() -> None:
    third = Link(terms("Bailey"), dial="Campbell", nonce=DIALLER_NONCE, now=0)
    hear(third, hello(name=b"Campbell", to=b"Bailey", nonce=LISTENER_NONCE.hex().encode()))
    obtained = third.data_to_send(0).splitlines(keepends=True)[1]
    right = listener()
    hear(right, hello())
    assert hear(right, obtained) == []
    assert_refused(right, "does not prove")


def test_who_refuses_says_so_and_the_other_tells_it_in_plain_words() -> None:
    left = dialler()
    hear(left, b"REFUSED \x1b[2Jno \xff thanks\n")
    assert left.reason == r"refused by the other: \x1b[2Jno \xff thanks"
    assert not left.proved


@pytest.mark.parametrize("said", [b"", hello()[:20], hello()])
def test_a_slow_handshake_is_given_up_at_its_deadline(said: bytes) -> None:
    right = listener(now=100)
    hear(right, said, 100)
    right.tick(100 + HANDSHAKE)
    assert not closed(right)
    hear(right, b"P", 100 + HANDSHAKE)  # bytes that trickle in buy no time
    right.tick(100 + HANDSHAKE + 0.01)
    assert right.state is State.CLOSED
    assert "handshake not done within 1 s" in right.reason


def test_a_connection_that_ends_in_its_handshake_tells_how_far_it_came() -> None:
    right = listener()
    right.receive_eof()
    assert right.reason == "closed by the other while waiting for the other's first line"
    right = listener()
    hear(right, hello()[:-5])
    right.receive_eof()
    assert right.reason == "closed by the other while waiting for the other's first line"
    right = listener()
    hear(right, hello())
    right.receive_eof()
    assert right.reason == "closed by the other while waiting for the other's proof"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_no_bytes_without_the_secret_make_a_link_live(pieces: list[bytes], greeted: bool) -> None:
    right = listener()
    if greeted:
        hear(right, hello())
    for piece in pieces:
        assert hear(right, piece) == []
        assert hear(right, piece + b"\n") == []
    assert right.state is not State.LIVE
    assert right.waiting <= 512


# Heartbeats and silence. --------------------------------------------------------------------------------------


def test_an_idle_link_beats_once_a_heartbeat_and_stays_live() -> None:
    left, right = linked()
    beats = 0
    for step in range(1, 400):
        now = step * HEARTBEAT / 4
        for one, other in ((left, right), (right, left)):
            one.tick(now)
            if data := one.data_to_send(now):
                assert data == b"BEAT\n"
                assert hear(other, data, now) == []
                beats += 1
    assert (left.state, right.state) == (State.LIVE, State.LIVE)
    assert beats == pytest.approx(2 * 100, abs=4)


def test_who_has_something_to_say_need_not_beat() -> None:
    left, _ = linked()
    for step in range(1, 40):
        now = step * HEARTBEAT / 4
        left.receive_data(b"BEAT\n", now)
        left.send_updates(at() + b"\n")
        left.tick(now)
        assert left.data_to_send(now) == at() + b"\n"


def test_a_link_is_dead_when_the_other_was_silent_for_three_heartbeats() -> None:
    left, _ = linked()
    left.receive_data(b"BEAT\n", 10)
    left.events(ALL)
    left.tick(10 + 3 * HEARTBEAT)
    assert not closed(left)
    left.send_updates(at() + b"\n")
    left.tick(10 + 3 * HEARTBEAT + 0.01)
    assert left.state is State.CLOSED
    assert left.reason == "silent for 1.5 s"
    assert left.proved
    assert left.data_to_send(12) == b""


def test_a_neighbour_is_not_silent_while_what_it_has_said_waits_to_be_heard() -> None:
    """It is read no further meanwhile, so that nothing more can come of it."""
    left, _ = linked()
    left.receive_data(b"BEAT\n" * 3, 10)
    for now in (20, 30):
        left.events(1)
        left.tick(now)
        assert not closed(left)
    left.events(ALL)
    left.tick(30 + 3 * HEARTBEAT)
    assert not closed(left), "its silence begins when all has been heard"
    left.tick(30 + 3 * HEARTBEAT + 0.01)
    assert left.reason == "silent for 1.5 s"


def test_part_of_a_line_is_a_sign_of_life() -> None:
    left, _ = linked()
    for step in range(20):
        left.receive_data(b"A", step * 1.0)
        left.tick(step * 1.0 + 0.9)
        assert left.state is State.LIVE


# A live link. -------------------------------------------------------------------------------------------------

MESSAGES: list[PeerMessage] = [
    Clock(0),
    Clock(1_621_464_827_959_498_503),
    AskDigests(""),
    AskDigests("a5f"),
    Digests("", [0] * 16),
    Digests("0", list(range(2**64 - 16, 2**64))),
    AskLeaf(0xFFFF, frozenset()),
    AskLeaf(0, frozenset({0, 1, 2**64 - 1})),
    AskRange(0, 0x10000),
    AskRange(0xFFFF, 0x10000),
    BatchHeader(0, 0x10000, 0),
    Done(),
    Changed(),
]


WIRE: list[tuple[bytes, AskDigests | AskLeaf | AskRange | Digests | BatchHeader | Done | Changed]] = [
    (b"DIGESTS -", AskDigests("")),
    (b"DIGESTS 6a8", AskDigests("6a8")),
    (b"DIGEST - " + b"00" * 127 + b"ff", Digests("", [0] * 15 + [255])),
    (b"DIGEST f " + b"0123456789abcdef" * 16, Digests("f", [0x0123456789ABCDEF] * 16)),
    (b"LEAF 6a8b -", AskLeaf(0x6A8B, frozenset())),
    (b"LEAF 0 07eea4865f6d5d00", AskLeaf(0, frozenset({0x07EEA4865F6D5D00}))),
    (b"RANGE 0 10000", AskRange(0, 65_536)),
    (b"RANGE a ff", AskRange(10, 255)),
    (b"BATCH 6a8b 6a8c 1", BatchHeader(0x6A8B, 0x6A8C, 1)),
    (b"BATCH 0 10000 1f", BatchHeader(0, 65_536, 31)),
    (b"BATCH ffff 10000 100000000", BatchHeader(65_535, 65_536, 2**32)),
    (b"DONE", Done()),
    (b"CHANGED", Changed()),
]
"""The bytes of docs/peer-protocol.md: a server of another release must understand them."""


@pytest.mark.parametrize(("line", "message"), WIRE, ids=[line[:16].decode() for line, _ in WIRE])
def test_messages_are_these_bytes_on_the_wire(line: bytes, message: Any) -> None:
    assert write_message(message) == line + b"\n"
    assert parse_message(line) == message
    left, _ = linked()
    left.send(message)
    assert left.data_to_send(0) == line + b"\n"


def test_hashes_stand_behind_one_another_on_the_wire() -> None:
    known = frozenset({1, 2**64 - 1})
    one, other = b"0" * 15 + b"1", b"f" * 16
    assert (
        parse_message(b"LEAF 7 " + one + other)
        == parse_message(b"LEAF 7 " + other + one)
        == AskLeaf(7, known)
    )
    assert write_message(AskLeaf(7, known)) in {
        b"LEAF 7 " + one + other + b"\n",
        b"LEAF 7 " + other + one + b"\n",
    }


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_tombstone_counts_as_sixteen_of_the_lines_asked_for(in_batch: bool) -> None:
    """To learn one takes as long: a turn with 1,024 of them would take 80 ms."""
    left, right = linked()
    lines = [Tombstone(number.to_bytes(16, "big"), 5).line for number in range(500)]
    lines[100:100] = [at()] * 100
    if in_batch:
        left.send_batch(0, 1, lines)
    else:
        left.send_updates(b"".join(line + b"\n" for line in lines))
    right.receive_data(left.data_to_send(0), 0)
    heard: list[bytes] = []
    right.more = True
    while right.more:
        learned: list[bytes] = []
        for event in right.events(128):
            if isinstance(event, Updates):
                learned += [one.entry.line for one in event.ats]
            elif isinstance(event, Erased):
                learned += [one.line for one in event.tombstones]
        tombstones = sum(line.startswith(b"GONE") for line in learned)
        assert tombstones * 16 + len(learned) - tombstones <= 128 + 15 * 16
        heard += learned
    assert heard == lines


def test_a_number_has_up_to_sixteen_digits() -> None:
    assert parse_message(b"BATCH %b %b %b" % (b"0" * 16, b"0" * 15 + b"1", b"0" * 15 + b"2")) == BatchHeader(
        0, 1, 2
    )


def test_a_batch_is_these_bytes_on_the_wire() -> None:
    left, _ = linked()
    left.send_batch(3, 0x1F, [at("a"), at("b")])
    assert left.data_to_send(0) == (
        b"BATCH 3 1f 2\nAT Clark +0.000000000 a +1+1 5\nAT Clark +0.000000000 b +1+1 5\n"
    )


def test_a_whole_handshake_is_these_bytes_on_the_wire() -> None:
    """With the secret of 32 times `s`. The proofs were calculated with openssl, as docs/peer-protocol.md says."""
    left, right = dialler(), listener()
    first = left.data_to_send(0)
    assert first == b"PROXYHERD 2,1 Bailey Bona " + b"01" * 32 + b"\n"
    hear(right, first)
    second = right.data_to_send(0)
    assert second == b"PROXYHERD 2 Bona Bailey " + b"02" * 32 + b"\n"
    hear(left, second)
    third = left.data_to_send(0)
    assert third == b"PROOF 3672d3ec9b8ae6075e004b41da914a96c82b54f004393ce9e4e67da7ffa1803b\n"
    hear(right, third)
    fourth = b"PROOF a84811b04a6855cf707e0d94b6254bc2cf3e2488cd75d64fb5e0f783fe4a83b5\n" + TERMS
    assert right.data_to_send(0) == fourth
    hear(left, fourth)
    assert left.data_to_send(0) == TERMS


@pytest.mark.parametrize("message", MESSAGES, ids=[type(one).__name__ for one in MESSAGES])
def test_every_message_comes_back_as_it_was_however_it_is_cut(message: Any) -> None:
    line = write_message(message)
    assert line.endswith(b"\n")
    assert parse_message(line[:-1]) == message
    for at_byte in range(len(line) + 1):
        _, right = linked()
        assert [*hear(right, line[:at_byte]), *hear(right, line[at_byte:])] == [message]
    _, right = linked()
    assert [event for byte in line for event in hear(right, bytes([byte]))] == [message]
    assert right.state is State.LIVE


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b" ",
            b"HELLO",
            b"beat",
            b"BEAT ",
            b" BEAT",
            b"BEAT\r",
            b"DONE 1",
            b"CHANGED -",
            b"AT",
            b"at x",
        ),
        *(
            b"DIGESTS",
            b"DIGESTS ",
            b"DIGESTS a5f0",
            b"DIGESTS A",
            b"DIGESTS - -",
            b"DIGESTS g",
            b"DIGESTS  -",
        ),
        *(b"DIGEST -", b"DIGEST - " + b"0" * 255, b"DIGEST - " + b"0" * 257, b"DIGEST - " + b"G" * 256),
        *(b"DIGEST a5f0 " + b"0" * 256, b"LEAF 10000 -", b"LEAF 0", b"LEAF 0 ", b"LEAF 0 0", b"LEAF - -"),
        *(b"LEAF 0 " + b"0" * 15, b"LEAF 0 " + b"F" * 16, b"RANGE 0 10001", b"RANGE 10000 10000", b"RANGE 0"),
        *(
            b"RANGE -1 5",
            b"RANGE +1 5",
            b"RANGE 0x1 5",
            b"RANGE X 5",
            b"RANGE 1_0 5",
            b"RANGE 0 0 0",
            b"BATCH 0 1",
        ),
        *(b"BATCH 0 1 100000001", b"BATCH 0 10001 1", b"BATCH 0 1 -", b"BATCH  0 1 1", b"REFUSED why"),
        *(
            b"BATCH 0 1 " + b"0" * 17,
            b"BATCH 10000 10000 1",
            b"PROXYHERD 1 Bailey Bona x",
            b"PROOF x",
            b"IAMAT kiwi +1+1 1",
            b"\xff",
        ),
    ],
)
def test_a_line_that_is_no_message_ends_a_live_link_and_is_told_in_plain_words(line: bytes) -> None:
    with pytest.raises(Misspoken):
        parse_message(line)
    _, right = linked()
    before, behind = at("before") + b"\n", at("behind") + b"\n"
    assert hear(right, before + line + b"\n" + behind) == [Updates([update("before")], caught_up=False)]
    assert right.state is State.CLOSED
    assert right.proved
    assert right.reason.startswith("broke the protocol with")
    assert right.reason.isascii()
    assert right.reason.isprintable()


def test_of_a_line_that_is_no_message_200_bytes_are_told() -> None:
    _, right = linked()
    hear(right, b"x" * 300 + b"\n")
    assert right.reason == "broke the protocol with " + "x" * 200


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_line_makes_the_parser_fail_otherwise(line: bytes) -> None:
    with contextlib.suppress(Misspoken):
        message = parse_message(line)
        assert parse_message(write_message(message)[:-1]) == message


def test_updates_come_in_order_in_one_event_a_run() -> None:
    left, right = linked()
    left.send_updates(at("a") + b"\n" + at("b") + b"\n")
    left.send_updates(at("c") + b"\n")
    _, heard = talk(left, right)
    assert heard == [Updates([update("a"), update("b"), update("c")], caught_up=False)]


@pytest.mark.parametrize(
    "poison",
    [
        *(b"AT ", b"AT Clark", at() + b" ", at() + b"\r", b"AT  Clark", at().replace(b"+1+1", b"+91+1")),
        at("k" * LINE_BYTES),
    ],
    ids=range(7),
)
def test_a_malformed_at_line_is_skipped_and_the_link_stays(poison: bytes) -> None:
    _, right = linked()
    events = hear(right, at("a") + b"\n" + poison + b"\n" + at("b") + b"\n" + write_message(Done()))
    assert [event for event in events if isinstance(event, Malformed)] == [Malformed(poison[:1_024])]
    learned = [one.client for event in events if isinstance(event, Updates) for one in event.ats]
    assert learned == [b"a", b"b"]
    assert events[-1] == Done()
    assert right.state is State.LIVE


def test_an_at_line_of_exactly_the_limit_is_taken_and_of_one_byte_more_is_not() -> None:
    _, right = linked()
    fitting = "k" * (LINE_BYTES - len(at("")))
    assert len(at(fitting)) == LINE_BYTES
    assert hear(right, at(fitting) + b"\n") == [Updates([update(fitting)], caught_up=False)]
    assert hear(right, at(fitting + "k") + b"\n") == [Malformed(at(fitting)[:1_024])]
    assert right.state is State.LIVE


def test_a_line_that_comes_over_several_links_is_parsed_once_and_what_is_kept_for_that_is_bounded() -> None:
    short = at("k" * (256 - len(at(""))))
    assert len(short) == 256
    parse_recent: Any = recent_parser(NANOSECONDS)
    parse_recent.cache_clear()
    for _ in range(2):
        _, right = linked()
        hear(right, short + b"\n" + short.replace(b"kkk", b"kkkk") + b"\n")
    kept = parse_recent.cache_info()
    assert (kept.hits, kept.misses, kept.currsize, kept.maxsize) == (1, 1, 1, 8_192)


# Batches. -----------------------------------------------------------------------------------------------------


def batch_bytes(link: Link, clients: Iterable[str]) -> bytes:
    link.send_batch(3, 9, [at(client) for client in clients])
    return link.data_to_send(0)


def test_a_batchs_lines_are_told_from_live_ones_and_then_the_batch_is_told() -> None:
    left, right = linked()
    data = at("live") + b"\n" + batch_bytes(left, ["a", "b"]) + at("late") + b"\n"
    assert hear(right, data) == [
        Updates([update("live")], caught_up=False),
        Updates([update("a"), update("b")], caught_up=True),
        BatchHeader(3, 9, 2),
        Updates([update("late")], caught_up=False),
    ]


def test_an_empty_batch_is_told_at_once() -> None:
    left, right = linked()
    assert hear(right, batch_bytes(left, [])) == [BatchHeader(3, 9, 0)]


def test_a_batch_cut_anywhere_brings_the_same_lines_and_is_told_once() -> None:
    left, _ = linked()
    data = batch_bytes(left, ["a", "b"]) + at("late") + b"\n"
    for at_byte in range(len(data) + 1):
        _, right = linked()
        events = [*hear(right, data[:at_byte]), *hear(right, data[at_byte:])]
        caught_up = [
            one for event in events if isinstance(event, Updates) and event.caught_up for one in event.ats
        ]
        live = [
            one for event in events if isinstance(event, Updates) and not event.caught_up for one in event.ats
        ]
        assert caught_up == [update("a"), update("b")]
        assert live == [update("late")]
        assert [event for event in events if isinstance(event, BatchHeader)] == [BatchHeader(3, 9, 2)]


def test_a_malformed_line_counts_among_its_batchs_lines() -> None:
    _, right = linked()
    data = write_message(BatchHeader(0, 1, 2)) + b"AT poison\n" + at("a") + b"\n" + at("late") + b"\n"
    events = hear(right, data)
    assert Malformed(b"AT poison") in events
    assert Updates([update("a")], caught_up=True) in events
    assert events[-2:] == [BatchHeader(0, 1, 2), Updates([update("late")], caught_up=False)]


@pytest.mark.parametrize("cut", [False, True])
def test_an_overlong_line_counts_among_its_batchs_lines(cut: bool) -> None:
    _, right = linked()
    long, events = b"AT " + b"x" * LINE_BYTES, list[LinkEvent]()
    data = write_message(BatchHeader(0, 1, 2)) + long + b"\n" + at("a") + b"\n" + at("late") + b"\n"
    for piece in (data[: len(long)], data[len(long) :]) if cut else (data,):
        events += hear(right, piece)
    assert events == [
        Malformed(long[:1_024]),
        Updates([update("a")], caught_up=True),
        BatchHeader(0, 1, 2),
        Updates([update("late")], caught_up=False),
    ]
    _, right = linked()
    events = hear(right, write_message(BatchHeader(0, 1, 1)) + long + b"\n" + at("late") + b"\n")
    assert events == [
        Malformed(long[:1_024]),
        BatchHeader(0, 1, 1),
        Updates([update("late")], caught_up=False),
    ]


def test_a_beat_within_a_batch_is_none_of_its_lines() -> None:
    _, right = linked()
    assert hear(right, write_message(BatchHeader(0, 1, 1)) + b"BEAT\n" + at("a") + b"\n")[-1] == BatchHeader(
        0, 1, 1
    )


@pytest.mark.parametrize(
    "line", [write_message(Done()), write_message(BatchHeader(5, 6, 1)), write_message(AskDigests(""))]
)
def test_a_batch_broken_off_ends_the_link_and_what_came_of_it_is_kept(line: bytes) -> None:
    _, right = linked()
    events = hear(right, write_message(BatchHeader(0, 1, 3)) + at("a") + b"\n" + line + at("b") + b"\n")
    assert events == [Updates([update("a")], caught_up=True)]
    assert right.state is State.CLOSED
    assert "broke off a batch" in right.reason


# The end. -----------------------------------------------------------------------------------------------------


def test_a_closed_link_hears_says_and_remembers_nothing_more() -> None:
    left, right = linked()
    right.send_updates(at() + b"\n")
    right.close("replaced by a newer link")
    right.close("another reason")
    assert right.reason == "replaced by a newer link"
    assert right.data_to_send(0) == b""
    assert hear(right, at() + b"\n") == []
    assert right.waiting == right._framer.waiting == 0
    right.tick(1_000)
    right.receive_eof()
    assert right.reason == "replaced by a newer link"
    left.receive_eof()
    assert left.reason == "closed by the neighbour"


# Updates that come back. -----------------------------------------------------------------------------------------


def lines_of(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_few_whole_lines_are_recognised_and_count_as_a_sign_of_life_once_heard() -> None:
    link, _ = linked()
    now = SILENT_HEARTBEATS * HEARTBEAT
    assert link.lines_in(lines_of(at("plum"), b"BEAT", at("kiwi"))) == [at("plum"), at("kiwi")]
    assert link.lines_in(b"BEAT\n") == []
    link.hear(now)
    link.tick(now + SILENT_HEARTBEATS * HEARTBEAT)
    assert link.reason == ""
    assert link.events(ALL) == [], "they are not handled again"
    assert link.lines_in(b"BEAT\n") == []
    link.tick(now + SILENT_HEARTBEATS * HEARTBEAT + 0.1)
    assert link.reason.startswith("silent"), "nobody has heard the last one"


LONG = at("k" * (CACHED_BYTES + 1 - len(at(""))))
MANY = _FEW_BYTES // len(at() + b"\n")


@pytest.mark.parametrize(
    "data",
    [
        lines_of(at("kiwi")) + b"AT",
        at("kiwi"),
        lines_of(LONG),
        lines_of(at("kiwi"), LONG, at("kiwi")),
        lines_of(*[at("kiwi")] * (MANY + 1)),
    ],
)
def test_lines_that_are_not_whole_or_too_long_or_too_many_are_left_to_a_turn(data: bytes) -> None:
    link, _ = linked()
    assert link.lines_in(data) is None


def test_as_many_and_as_long_lines_as_may_be_are_recognised() -> None:
    link, _ = linked()
    assert len(link.lines_in(lines_of(LONG.replace(b"kk", b"k", 1), at())) or []) == 2
    assert link.lines_in(lines_of(*[at("kiwi")] * MANY)) == [at("kiwi")] * MANY


def test_nothing_is_recognised_in_the_middle_of_something_else() -> None:
    data = lines_of(at("kiwi"))
    for said in (b"AT ", b"BATCH 0 1 2\n", b"x" * (LINE_BYTES + 1), b"DONE\n"):
        link, _ = linked()
        link.receive_data(said, 0)
        if said != b"DONE\n":  # which waits for a turn
            link.events(ALL)
        assert link.lines_in(data) is None, said
    assert listener().lines_in(data) is None
    link, _ = linked()
    link.close("")
    assert link.lines_in(data) is None


# When the clock has something to do. ------------------------------------------------------------------------------


def test_a_link_says_when_it_has_to_beat_to_be_given_up_or_to_have_shaken_hands() -> None:
    half_open = listener(now=5)
    assert half_open.tick(6) == 5 + HANDSHAKE
    link, _ = linked()
    assert link.tick(0) == HEARTBEAT
    assert link.tick(HEARTBEAT) == 2 * HEARTBEAT
    assert link.data_to_send(HEARTBEAT) == b"BEAT\n"
    for beats in range(2, SILENT_HEARTBEATS + 2):
        assert link.tick((beats - 1) * HEARTBEAT) == min(beats, SILENT_HEARTBEATS) * HEARTBEAT
        link.send_updates(b"AT\n")
        link.data_to_send(beats * HEARTBEAT)
    link.receive_data(b"BEAT\n", 100)
    link.close("")
    assert link.tick(100) == 100
