"""The door: where a token is looked for, when it is good, and what is told of it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict
from tokens import KEY, MOST_SECONDS, NOW, OTHER_KEY, basic, token

from proxyherd.web.access import DETAILS, KNOWN_TOKENS, LEEWAY_SECONDS, Access, TokenProblem, without_token
from proxyherd.web.frames import close_frame
from proxyherd.web.problems import NOT_TAKEN, Problem
from proxyherd.web.requests import ReadRequest
from proxyherd.web.rights import Grant, revocation
from proxyherd.web.tokens import TokenVerifier

SECOND = 10**9


class Door:
    """An `Access` with its clock, and the moments of revoked subjects."""

    def __init__(self) -> None:
        self.now = NOW * SECOND
        self.revoked: dict[bytes, int | None] = {}
        self.access = Access(lambda id_: self.revoked.get(id_, 0))
        self.access.renew(TokenVerifier([KEY], MOST_SECONDS))

    def grant(self, target: str = "/v1/reports", *authorization: str) -> Grant:
        headers = CIMultiDict(("Authorization", one) for one in authorization)
        return self.access.grant(without_token(ReadRequest("GET", target, headers, b"")), self.now)

    def bearer(self, spelling: str) -> Grant:
        return self.grant("/", f"Bearer {spelling}")

    def refused(self, *asked: str) -> str:
        with pytest.raises(TokenProblem) as refusal:
            self.grant(*asked)
        assert refusal.value.kind.status == 401
        return refusal.value.reason


@pytest.mark.parametrize(
    ("target", "authorization"),
    [
        (f"/t/{token()}/osmand?id=7", ()),
        (f"http://localhost:1/t/{token()}/", ()),
        ("/", (f"Bearer {token()}",)),
        ("/", (f"bearer  {token()} ",)),
        ("/", (basic("jane", token()),)),
        ("/", (basic("", token()).replace("Basic", "BASIC"),)),
        # What stands in the path counts: apps add what they please to their headers.
        (f"/t/{token()}/", (basic("jane", ""),)),
        (f"/t/{token()}/", (f"Bearer {token(OTHER_KEY)}",)),
    ],
)
def test_a_token_is_in_the_path_or_in_the_header(target: str, authorization: tuple[str, ...]) -> None:
    assert Door().grant(target, *authorization).subject == "jane/*"


@pytest.mark.parametrize(
    ("target", "authorization"),
    [
        ("/", ()),
        ("/", ("",)),
        ("/", ("Bearer",)),
        ("/", ("Bearer ",)),
        ("/", (basic("jane", ""),)),
        ("/", (basic(token(), ""),)),
        ("/", ("Basic !",)),
        ("/", (f"Digest {token()}",)),
        ("/", (token(),)),
        ("/", (f"Bearer {token()}", f"Bearer {token()}")),
        (f"/t/{token()}", ()),
        (f"/t//{token()}/", ()),
        (f"/x/t/{token()}/", ()),
        (f"/?token={token()}", ()),
    ],
)
def test_elsewhere_it_is_none(target: str, authorization: tuple[str, ...]) -> None:
    assert Door().refused(target, *authorization) == "missing"


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("/t/abc/osmand?id=/t/x/", "/osmand?id=/t/x/"),
        ("/t/abc/", "/"),
        ("/t/abc//v1", "//v1"),
        ("HTTP://h:1/t/abc/v1/ws", "HTTP://h:1/v1/ws"),
        ("/t/a%2Fb/v1/clients/a%2Fb", "/v1/clients/a%2Fb"),
        ("/t/abc", None),
        ("/t/abc?x", None),
        ("/t/", None),
        ("/T", None),
        ("*", None),
        ("/v1/clients/t/abc/", None),
    ],
)
def test_the_path_of_a_request_is_what_stands_behind_its_token(target: str, rest: str | None) -> None:
    request = ReadRequest("GET", target, CIMultiDict(), b"x", is_old=True)
    found = without_token(request)
    assert isinstance(found, ReadRequest)
    assert (found.body, found.is_old) == (b"x", True)
    if rest is None:
        assert found is request
    else:
        assert (found.target, found.token) == (rest, target.split("/t/")[1].split("/", maxsplit=1)[0])


def test_a_token_is_good_up_to_its_end_and_from_a_bit_before_its_beginning_on() -> None:
    door = Door()
    spelling = token(nbf=NOW + 100)
    for now, refusal in [
        (NOW + 100 - LEEWAY_SECONDS - 1, "early"),
        (NOW + 100 - LEEWAY_SECONDS, None),
        (NOW + 3_599, None),
        (NOW + 3_600, "expired"),
        (NOW + 9_999, "expired"),
    ]:
        door.now = now * SECOND
        if refusal is None:
            door.bearer(spelling)
        else:
            assert door.refused("/", f"Bearer {spelling}") == refusal


def test_a_revoked_subject_is_refused_and_may_have_a_new_token() -> None:
    door = Door()
    door.bearer(token())
    door.now += 10 * SECOND
    door.revoked[revocation("jane/*")] = door.now
    assert door.refused("/", f"Bearer {token()}") == "revoked"
    assert door.refused("/", f"Bearer {token(iat=NOW + 10)}") == "revoked"
    door.bearer(token(sub="jane/phone"))
    door.now += (LEEWAY_SECONDS + 1) * SECOND
    door.bearer(token(iat=NOW + 10 + LEEWAY_SECONDS + 1))


def test_a_token_that_was_made_by_a_clock_ahead_is_revoked_too() -> None:
    """Whatever was good at the moment of the revocation is good no more."""
    door = Door()
    ahead = token(iat=NOW + LEEWAY_SECONDS)
    door.bearer(ahead)
    door.revoked[revocation("jane/*")] = door.now
    assert door.refused("/", f"Bearer {ahead}") == "revoked"
    for seconds in range(LEEWAY_SECONDS + 1):
        door.now = (NOW + seconds) * SECOND
        assert door.refused("/", f"Bearer {token(iat=NOW + seconds)}") == "revoked"


def test_as_long_as_nobody_knows_who_was_revoked_nobody_is_let_in_and_who_is_in_stays() -> None:
    door = Door()
    grant = door.bearer(token())
    door.revoked[revocation("jane/*")] = None
    with pytest.raises(Problem) as refusal:
        door.bearer(token())
    assert (refusal.value.kind, refusal.value.retry_seconds > 0) == (NOT_TAKEN, True)
    assert door.access.refusal(grant, door.now) is None
    assert door.refused("/", f"Bearer {token(OTHER_KEY)}") == "signature", "that needs no knowledge"
    door.bearer(token(sub="bob"))


def test_a_signature_is_checked_once_and_again_with_other_keys() -> None:
    door = Door()
    old = token()
    first = door.bearer(old)
    assert all(door.bearer(old) is first for _ in range(10))
    assert door.access.tried == 1
    door.access.renew(TokenVerifier([OTHER_KEY, KEY], MOST_SECONDS))
    assert door.access.refusal(first, door.now) is None
    door.bearer(old)
    assert door.access.tried == 2
    door.access.renew(TokenVerifier([OTHER_KEY], MOST_SECONDS))
    assert door.refused("/", f"Bearer {old}") == "signature"
    assert door.access.refusal(first, door.now) == "renewed"


def test_bad_tokens_take_no_place_among_the_good_ones() -> None:
    door = Door()
    door.bearer(token())
    for number in range(KNOWN_TOKENS + 1):
        door.refused("/", f"Bearer {number}.AAAA.AAAA")
    assert door.access.tried == 1
    door.bearer(token())
    assert door.access.tried == 1


def test_without_a_key_nobody_is_let_in_and_phones_keep_what_they_have() -> None:
    access = Access(lambda _: 0)
    for headers in ({}, {"Authorization": f"Bearer {token()}"}):
        with pytest.raises(Problem) as refusal:
            access.grant(ReadRequest("GET", "/", CIMultiDict(headers), b""), NOW * SECOND)
        assert refusal.value.kind is NOT_TAKEN
    assert access.tried == 0


@pytest.mark.parametrize("detail", DETAILS.values())
def test_a_detail_fits_into_a_close_frame(detail: str) -> None:
    assert close_frame(4401, detail).endswith(detail.encode())
