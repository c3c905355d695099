"""Tokens: only those that one of our keys has signed, with the algorithm of that key, and that are whole."""

from __future__ import annotations

import contextlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokens import (
    KEY,
    MOST_SECONDS,
    NOW,
    OTHER_KEY,
    PRIVATE,
    PUBLIC,
    PUBLIC_PEM,
    claims_of,
    spelled,
    token,
)

from proxyherd.config.token_keys import TokenKey
from proxyherd.web.access import TokenProblem
from proxyherd.web.rights import RIGHTS
from proxyherd.web.tokens import MOST_TOKEN_BYTES, TokenVerifier, make_token

SECOND = 10**9


def verifier(*keys: TokenKey) -> TokenVerifier:
    return TokenVerifier(keys or (KEY, PUBLIC), MOST_SECONDS)


def refused(spelling: str, *keys: TokenKey) -> str:
    with pytest.raises(TokenProblem) as refusal:
        verifier(*keys).verify(spelling)
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None or refusal.value.__suppress_context__
    said = str(refusal.value.content())
    assert [part for part in spelling.split(".") if len(part) > 3 and part in said] == []
    return refusal.value.reason


@pytest.mark.parametrize(("signer", "key"), [(KEY, KEY), (PRIVATE, PUBLIC)])
def test_a_token_grants_what_its_claims_say(signer: Any, key: TokenKey) -> None:
    found = verifier().verify(token(signer, nbf=NOW + 5, see=["a", "b*"], more=[1]))
    assert (found.subject, found.see) == ("jane/*", ("a", "b*"))
    assert {*found.may} == {"report", "see"}
    assert (found.issued, found.begins, found.ends) == (
        NOW * SECOND,
        (NOW + 5) * SECOND,
        (NOW + 3_600) * SECOND,
    )
    assert found.key == key.id


def test_by_default_its_holder_sees_what_it_may_report() -> None:
    assert verifier().verify(token()).see == ("jane/*",)
    assert verifier().verify(token(see=[])).see == ()


@pytest.mark.parametrize(("signer", "key"), [(KEY, KEY), (PRIVATE, PUBLIC)])
def test_a_token_of_ours_is_read_as_it_was_made(signer: Any, key: TokenKey) -> None:
    made = make_token(signer, "my phone", RIGHTS, ["*"], NOW, NOW + 60)
    found = verifier(key).verify(made)
    assert (found.subject, found.see, found.key) == ("my phone", ("*",), key.id)
    assert {*found.may} == {*RIGHTS}
    assert (found.issued, found.begins, found.ends) == (NOW * SECOND, NOW * SECOND, (NOW + 60) * SECOND)


def signed(header: dict[str, Any], key: bytes, **claims: Any) -> str:
    """Return a token that an attacker has put together, with a signature of HMAC."""
    begin = spelled(header, claims_of(**claims))
    return f"{begin}.{spelled(hmac.digest(key, begin.encode(), 'sha256'))}"


NO_SIGNATURE = spelled({"alg": "none"}, claims_of())


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (signed({"alg": "HS256"}, KEY.data), None),
        (signed({"alg": "HS256"}, OTHER_KEY.data), "signature"),
        (signed({"alg": "HS256"}, PUBLIC.data), "signature"),
        (signed({"alg": "HS256"}, PUBLIC_PEM), "signature"),
        (signed({"alg": "HS256", "kid": PUBLIC.id}, PUBLIC.data), "signature"),
        (signed({"alg": "EdDSA"}, KEY.data), "signature"),
        (signed({"alg": "EdDSA", "kid": KEY.id}, KEY.data), "signature"),
        (signed({"alg": "HS512"}, KEY.data), "signature"),
        (signed({"alg": "hs256"}, KEY.data), "signature"),
        (signed({"alg": "none"}, KEY.data), "signature"),
        (signed({"alg": ["HS256"]}, KEY.data), "malformed"),
        (signed({"alg": "HS256", "crit": ["b64"], "b64": False}, KEY.data), "malformed"),
        (signed({"alg": "HS256", "crit": ["exp"]}, KEY.data), "malformed"),
        (signed({"kid": KEY.id}, KEY.data), "malformed"),
        (f"{NO_SIGNATURE}.", "malformed"),
        (f"{NO_SIGNATURE}.AAAA", "signature"),
        (NO_SIGNATURE, "malformed"),
        ("", "malformed"),
        ("..", "malformed"),
        ("a.b.c", "malformed"),
        ("[" * 900 + ".e30.AAAA", "malformed"),
        (f"{spelled(b'[' * 900)}.e30.AAAA", "malformed"),
        (f"{token()}.AAAA", "malformed"),
        (f"{token()}\n", "malformed"),
        (f"{token()}=", "malformed"),
        (f" {token()}", "malformed"),
        (token().replace(".", "é."), "malformed"),
        (token(pad="x" * MOST_TOKEN_BYTES), "malformed"),
    ],
)
def test_what_an_attacker_puts_together_is_no_token(attack: str, reason: str | None) -> None:
    if reason is None:
        assert verifier().verify(attack).subject == "jane/*"
    else:
        assert refused(attack) == reason


def test_a_long_token_is_not_looked_at() -> None:
    one = verifier()
    with pytest.raises(TokenProblem):
        one.verify(token(pad="x" * MOST_TOKEN_BYTES))
    assert one.tried == 0


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 513},
        {"may": None},
        {"may": "report"},
        {"may": ["report", "fly"]},
        {"see": "jane"},
        {"see": [""]},
        {"exp": None},
        {"exp": "2030"},
        {"exp": True},
        {"exp": NOW},
        {"exp": NOW - 1},
        {"exp": 1e300},
        {"exp": NOW + MOST_SECONDS + 1},
        {"iat": None},
        {"iat": -1},
        {"nbf": "now"},
        {"aud": "others"},
        {"aud": []},
    ],
)
def test_a_claim_that_is_missing_or_not_as_it_must_be_spoils_a_token(claims: dict[str, Any]) -> None:
    assert refused(token(**claims)) == "claims"


def test_a_token_may_live_as_long_as_its_revocation_is_remembered() -> None:
    assert verifier().verify(token(exp=NOW + MOST_SECONDS)).ends == (NOW + int(MOST_SECONDS)) * SECOND


@pytest.mark.parametrize("payload", [b"", b"7", b"[]", b"{", b"\xff", b'{"sub":"a"' + b"[" * 500])
def test_claims_that_are_no_object_spoil_a_token(payload: bytes) -> None:
    begin = spelled({"alg": "HS256"}, payload)
    attack = f"{begin}.{spelled(hmac.digest(KEY.data, begin.encode(), 'sha256'))}"
    assert refused(attack) == ("claims" if payload else "malformed")


def test_keys_are_tried_in_turn_unless_the_token_names_one_of_ours() -> None:
    third = TokenKey("HS256", bytes(32))
    one = verifier(OTHER_KEY, KEY, third)
    for header, tried in ((None, 2), ({"kid": "theirs"}, 2), ({"kid": KEY.id}, 1)):
        one.tried = 0
        assert one.verify(token(header=header)).key == KEY.id
        assert one.tried == tried
    assert refused(token(header={"kid": third.id}), OTHER_KEY, KEY, third) == "signature"


def test_a_key_that_is_gone_has_signed_nothing() -> None:
    assert refused(token(OTHER_KEY), KEY) == "signature"
    assert refused(token(PRIVATE), KEY) == "signature"
    assert refused(token(KEY), PUBLIC) == "signature"


@given(st.data())
def test_a_token_that_is_changed_anywhere_is_refused(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([token(KEY), token(PRIVATE)]))
    at = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from([one for one in "Aa0-_.=" if one != good[at]]))
    assert refused(good[:at] + other + good[at + 1 :]) in ("malformed", "signature")
    assert refused(good[:at]) in ("malformed", "signature")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "crit", "b64", "typ", "sub", "may", "exp", "iat", "see", "aud"])


@given(
    st.dictionaries(NAMES, JSON | st.sampled_from(["HS256", "EdDSA", "none"]), max_size=4),
    st.dictionaries(NAMES, JSON, max_size=5) | JSON,
)
def test_whatever_it_says_a_token_is_a_grant_or_a_reason(header: dict[str, Any], payload: Any) -> None:
    begin = spelled(header, json.dumps(payload).encode())
    whole = f"{begin}.{spelled(hmac.digest(KEY.data, begin.encode(), 'sha256'))}"
    with contextlib.suppress(TokenProblem):
        assert verifier().verify(whole).key == KEY.id
