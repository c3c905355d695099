"""How a request is transferred is decided by its version and headers, and what is not certain is refused."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxyherd.web.bodies import BODY_BYTES
from proxyherd.web.problems import CODING, EXPECTATION, LARGE, REQUEST, VERSION, Kind, Problem
from proxyherd.web.transfers import check_transfer

NEW, OLD = (1, 1), (1, 0)
CONTINUE = ("Expect", "100-continue")
CHUNKED = ("Transfer-Encoding", "chunked")
SIZE = ("Content-Length", "5")


def check(*headers: tuple[str, str], version: tuple[int, int] = NEW, method: str = "PUT") -> bool:
    return check_transfer(method, version, CIMultiDict([("Host", "a"), *headers]))


def refused(*headers: tuple[str, str], version: tuple[int, int] = NEW, method: str = "PUT") -> Kind:
    with pytest.raises(Problem) as raised:
        check(*headers, version=version, method=method)
    return raised.value.kind


@pytest.mark.parametrize("version", [NEW, OLD, (1, 2)])
def test_a_body_of_known_length_or_none_is_read(version: tuple[int, int]) -> None:
    for headers in ([], [SIZE], [("Content-Length", "0")], [("content-length", f" {BODY_BYTES} ")]):
        assert not check(*headers, version=version)


@pytest.mark.parametrize("spelled", ["chunked", "Chunked", " chunked "])
def test_a_body_in_chunks_is_read(spelled: str) -> None:
    assert not check(("Transfer-Encoding", spelled))
    assert not check(("transfer-encoding", spelled), version=(1, 9))


@pytest.mark.parametrize("version", [(0, 9), (2, 0), (3, 0), (0, 0), (11, 1)])
def test_other_versions_are_refused_whatever_else_is_there(version: tuple[int, int]) -> None:
    assert refused(version=version) == refused(CHUNKED, SIZE, version=version) == VERSION


@pytest.mark.parametrize(
    ("codings", "kind"),
    [
        *(
            (coding, CODING)
            for coding in ("gzip, chunked", "deflate,chunked", "br , x, chunked", "identity, chunked")
        ),
        *((coding, REQUEST) for coding in ("gzip", "identity", "", ",", "chunked,", "chunked, gzip")),
        *((coding, REQUEST) for coding in ("chunked, chunked", "xchunked", "chunked;q=1", "chunked chunked")),
        *((coding, REQUEST) for coding in ("chunked, gzip, chunked", "\x0bchunked", "chunked\u00a0")),
        *((coding, REQUEST) for coding in ("chun\u212aed", "chunked\r", "gzip, chun\u212aed")),
    ],
)
def test_a_coding_besides_chunked_is_not_read_and_where_the_end_is_not_certain_it_is_no_request(
    codings: str, kind: Kind
) -> None:
    assert refused(("Transfer-Encoding", codings)) == kind
    if "," in codings:
        lines = [("Transfer-Encoding", one) for one in codings.split(",")]
        assert refused(*lines) == kind


@pytest.mark.parametrize("headers", [[CHUNKED, SIZE], [SIZE, CHUNKED], [CHUNKED, ("Content-Length", "0")]])
def test_length_and_chunks_together_are_no_request(headers: list[tuple[str, str]]) -> None:
    assert refused(*headers) == REQUEST


def test_http_1_0_has_no_chunks() -> None:
    assert refused(CHUNKED, version=OLD) == REQUEST


@pytest.mark.parametrize(
    "length", ["", "+5", "-1", "0x5", "5,5", "5 5", "5.0", "1_0", "\u0665", "9" * 20, "chunked", "5\x0b"]
)
def test_a_length_is_one_number(length: str) -> None:
    assert refused(("Content-Length", length)) == REQUEST


def test_two_lengths_are_no_request_even_if_they_agree() -> None:
    assert refused(SIZE, SIZE) == REQUEST


@pytest.mark.parametrize("length", [BODY_BYTES + 1, 10**18, "9" * 19])
def test_a_body_that_is_too_large_is_refused_before_it_comes(length: int | str) -> None:
    assert refused(("Content-Length", str(length))) == LARGE
    assert refused(("Content-Length", str(length)), CONTINUE) == LARGE


def test_a_client_that_waits_before_it_sends_its_body_is_told_to_go_on() -> None:
    for body in (SIZE, CHUNKED):
        assert check(CONTINUE, body)
        assert check(("expect", "100-Continue"), body)
    for headers in ([], [("Content-Length", "0")]):
        assert not check(CONTINUE, *headers), "there is no body to wait for"
    assert not check(CONTINUE, SIZE, version=OLD)
    assert not check(("Expect", "miracles"), SIZE, version=OLD)


@pytest.mark.parametrize("expected", ["miracles", "", "100-continue, miracles", "100-continue=1", "200-ok"])
def test_other_expectations_cannot_be_met(expected: str) -> None:
    assert refused(("Expect", expected)) == refused(("Expect", expected), SIZE) == EXPECTATION
    assert refused(CONTINUE, ("Expect", expected), SIZE) == EXPECTATION


def test_this_is_no_proxy() -> None:
    assert refused(method="CONNECT") == refused(CONTINUE, SIZE, method="CONNECT") == REQUEST
