"""X-Koder-Context: what is signed and for how long, and that a service is taken in by nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.context import ContextError, PublishedKeys, UnknownKeyError, VerifiedContext, verify
from koder_gateway.policy.signed_context import _KEPT, LIFE, RENEWAL, ContextSigner, public_jwk
from koder_gateway.policy.signing_keys import SigningKey
from tests.kit.signing_keys import ED25519, EDDSA, ES256, part, public_pem, token

NOW = 1_800_000_000
HOST = "koder.id.koder.dev"
JWKS = {"keys": [public_jwk(EDDSA), public_jwk(ES256)]}
CLAIMS = {
    "iss": "koder-gateway",
    "iat": NOW,
    "exp": NOW + 60,
    "tenant": "koder",
    "ip": "192.0.2.1",
    "host": HOST,
}


class Wall:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def signer(key: SigningKey = EDDSA, *others: SigningKey, wall: Wall | None = None) -> ContextSigner:
    return ContextSigner(key, others, wall or Wall())


def value(line: bytes) -> str:
    """The token in a field line."""
    assert (line[:17], line[-2:]) == (b"X-Koder-Context: ", b"\r\n")
    return line[17:-2].decode()


def checked(text: str, *, host: str = HOST, now: float = NOW, **more: Any) -> VerifiedContext:
    return verify(text, JWKS, host=host, now=now, **more)


# -- what is signed


@pytest.mark.parametrize("key", [EDDSA, ES256], ids=lambda key: key.algorithm)
def test_a_service_learns_what_the_gateway_knows(key: SigningKey) -> None:
    line = signer(key).field(b"192.0.2.1", b"koder", HOST.encode()).line()
    assert checked(value(line)) == VerifiedContext("koder", "192.0.2.1", HOST, NOW)
    assert checked(value(line), host="KODER.id.koder.dev.:8443", tenant="koder").tenant == "koder"


def test_it_is_used_for_half_of_its_life_whatever_becomes_of_the_clock() -> None:
    wall = Wall()
    field = signer(wall=wall).field(b"192.0.2.1", b"koder", HOST.encode())
    first = field.line()
    wall.now += RENEWAL - 0.5
    assert field.line() is first
    wall.now += 0.5
    second = field.line()
    assert second != first
    assert checked(value(second), now=wall.now).issued == NOW + RENEWAL
    for moved in (-3600.0, 7200.0):
        wall.now += moved
        assert checked(value(field.line()), now=wall.now).issued == int(wall.now)
    assert LIFE == 2 * RENEWAL == 60


def test_one_is_signed_for_each_client_tenant_and_host() -> None:
    made = signer()
    one = made.field(b"192.0.2.1", b"koder", b"a")
    assert made.field(b"192.0.2.1", b"koder", b"a") is one
    others = [
        made.field(*asked)
        for asked in ((b"192.0.2.2", b"koder", b"a"), (b"192.0.2.1", b"acme", b"a"), (b"192.0.2.1", b"koder", b"b"))
    ]
    assert len({field.line() for field in (one, *others)}) == 4


def test_what_is_kept_is_bounded() -> None:
    made = signer()
    for number in range(3 * _KEPT):
        made.field(b"%d" % number, b"koder", b"a")
    assert len(made._kept) <= _KEPT


def test_what_is_published_is_public() -> None:
    following = SigningKey("EdDSA", public_pem(ED25519))
    published = json.loads(signer(ES256, following, EDDSA).jwks)
    assert [(key["kty"], key["alg"], key["use"]) for key in published["keys"]] == [
        ("EC", "ES256", "sig"),
        ("OKP", "EdDSA", "sig"),
    ]
    assert {name for key in published["keys"] for name in key} == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert "PRIVATE" not in repr(EDDSA)


# -- what a service accepts


def refused(text: str | bytes, keys: Any = JWKS, **more: Any) -> str:
    """Why a token is refused."""
    with pytest.raises(ContextError) as caught:
        verify(text, keys, host=more.pop("host", HOST), now=more.pop("now", NOW), **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(name: str) -> dict[str, object]:
    return {claim: said for claim, said in CLAIMS.items() if claim != name}


FORGED = [
    (token({**CLAIMS, "exp": NOW - 6, "iat": NOW - 66}), "the context expired 6 seconds ago"),
    (token({**CLAIMS, "iat": NOW + 6, "exp": NOW + 66}), "the context is from 6 seconds ahead; compare the clocks"),
    (token({**CLAIMS, "exp": NOW + 61}), "the context is valid for more than 60 seconds"),
    (token({**CLAIMS, "iss": "acme"}), "the issuer is 'acme', not \"koder-gateway\""),
    (token({**CLAIMS, "host": "acme.id.koder.dev"}), "the context is for the host 'acme.id.koder.dev', and the"),
    (token({**CLAIMS, "iat": "1"}), "the context has a claim of the wrong type"),
    (token({**CLAIMS, "exp": True}), "the context has a claim of the wrong type"),
    (token({**CLAIMS, "tenant": ["koder"]}), "the context has a claim of the wrong type"),
    (token(without("ip")), "the context lacks a claim: 'ip'"),
    (token([]), "the context lacks a claim: "),
    (token(b"no JSON"), "the context lacks a claim: "),
    (token(CLAIMS, typ="JWT"), "the typ is 'JWT', not \"koder-context+jwt\""),
    (token(CLAIMS, typ=None), "the typ is None"),
    (token(CLAIMS, kid=None), "the context names no key"),
    (token(CLAIMS, kid=7), "the context "),
    (token(CLAIMS, kid="x"), "the key 'x' is not one of the gateway's"),
    (token(CLAIMS, kid=public_jwk(ES256)["kid"]), f"the key '{public_jwk(ES256)['kid']}' is not for EdDSA"),
    (token(CLAIMS, alg="none"), "the algorithm is 'none', neither EdDSA nor ES256"),
    (token(CLAIMS, alg="HS256"), "the algorithm is 'HS256', neither EdDSA nor ES256"),
    (token(CLAIMS, crit=["exp"]), "the context has a crit"),
    (token(CLAIMS) + "A", "the signature is wrong"),
    (token(CLAIMS)[:-8], "the "),
    (token(CLAIMS).rpartition(".")[0] + ".", "the "),
    ("", "the context is no compact JWS: "),
    ("a.b.c", "the context is no compact JWS: "),
    ("\u00e9" * 10, "the context is no compact JWS: "),
    ("a" * 5000, "the context is too long"),
]


@pytest.mark.parametrize(("text", "why"), FORGED, ids=map(str, range(len(FORGED))))
def test_nothing_else_is_accepted(text: str, why: str) -> None:
    assert refused(text).startswith(why)


def test_leeway_and_tenant() -> None:
    assert checked(token(CLAIMS), now=NOW + 64.9).tenant == "koder"
    assert refused(token(CLAIMS), now=NOW + 60.0, leeway=0) == "the context expired 0 seconds ago"
    assert refused(token(CLAIMS), tenant="acme").startswith("the context is for the tenant 'koder', and the request")


def test_the_public_key_is_no_shared_secret() -> None:
    """The classic confusion of algorithms: signed with the published key as an HMAC's."""
    for secret in (public_pem(ED25519), json.dumps(public_jwk(EDDSA)).encode()):
        signed = (
            f"{part({'alg': 'HS256', 'kid': public_jwk(EDDSA)['kid'], 'typ': 'koder-context+jwt'})}.{part(CLAIMS)}"
        )
        forged = f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
        assert refused(forged).startswith("the algorithm is 'HS256'")


def test_a_key_of_the_set_that_is_none() -> None:
    broken = {"keys": [{**public_jwk(EDDSA), "x": "AA"}]}
    assert refused(token(CLAIMS), broken).startswith(f"the key '{public_jwk(EDDSA)['kid']}' cannot be used: ")
    for changed in ({"use": "enc"}, {"alg": "ES256"}, {"crv": "Ed448"}, {"kty": "EC"}):
        assert refused(token(CLAIMS), {"keys": [{**public_jwk(EDDSA), **changed}]}).endswith(" is not for EdDSA")


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, flipped: int) -> None:
    genuine = token(CLAIMS).encode()
    forged = bytearray(genuine)
    forged[place % len(forged)] ^= flipped
    # Of the last character of a part two bits mean nothing.
    if bytes(forged) != genuine and place % len(forged) not in {
        end - 1 for end in (genuine.index(b"."), genuine.rindex(b"."), len(genuine))
    }:
        refused(bytes(forged))


@pytest.mark.parametrize("keys", [{}, {"keys": None}, {"keys": [{"kid": []}]}, {"keys": [7]}, {"keys": []}])
def test_a_set_that_is_none(keys: Mapping[str, Any]) -> None:
    assert refused(token(CLAIMS), keys)


# -- keys that are fetched


class Fetching:
    """An address that keys are fetched from."""

    def __init__(self) -> None:
        self.asked = 0
        self.keys: Any = {"keys": [public_jwk(EDDSA)]}
        self.now = 0.0
        self.published = PublishedKeys(self.fetch, clock=lambda: self.now)

    def fetch(self) -> Any:
        self.asked += 1
        if isinstance(self.keys, Exception):
            raise self.keys
        return self.keys

    def accepts(self, key: SigningKey = EDDSA) -> bool:
        try:
            verify(token(CLAIMS, key), self.published, host=HOST, now=NOW)
        except UnknownKeyError:
            return False
        return True


def test_keys_are_fetched_once_in_a_while() -> None:
    there = Fetching()
    assert [there.accepts() for _ in range(3)] == [True] * 3
    assert there.asked == 1
    there.now = 299.0
    assert (there.accepts(), there.asked) == (True, 1)
    there.now = 300.0
    assert (there.accepts(), there.asked) == (True, 2)


def test_a_new_key_is_asked_for_but_no_flood_of_invented_ones() -> None:
    there = Fetching()
    assert there.accepts()
    there.keys = json.dumps(JWKS)
    there.now = 5.0
    assert [there.accepts(ES256) for _ in range(5)] == [False] * 5
    there.now = 10.0
    assert (there.accepts(ES256), there.asked) == (True, 2)


def test_an_address_that_cannot_be_reached() -> None:
    there = Fetching()
    there.keys = OSError("no route")
    assert refused(token(CLAIMS), there.published) == "the gateway's keys cannot be fetched: no route"
    there.keys, there.now = {"keys": [public_jwk(EDDSA)]}, 10.0
    assert there.accepts()
    there.keys, there.now = b"<html>", 320.0
    assert there.accepts(), "the known keys stay in use"
    there.now = 610.0
    assert refused(token(CLAIMS), there.published) == "the gateway's keys cannot be fetched"
    there.keys, there.now = {"keys": [public_jwk(EDDSA)]}, 621.0
    assert there.accepts()


def test_several_threads_ask_once() -> None:
    there = Fetching()
    threads = [threading.Thread(target=there.accepts) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there.asked == 1


def test_a_service_needs_no_twisted() -> None:
    code = "import sys, koder_gateway.context; sys.exit(any(name.startswith('twisted') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gateway_without_a_key_does_not_import_joserfc() -> None:
    code = (
        "import sys\nfrom koder_gateway.config import Settings\nfrom koder_gateway.tree.compose import make_policy\n"
        "make_policy(Settings(), None)\nsys.exit('joserfc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_extension_that_must_be_understood_is_refused() -> None:
    """RFC 7515 section 4.1.11."""
    for crit in (["b64"], ["kid"], ["exp"], [], "b64"):
        with pytest.raises(ContextError, match="the context has a crit"):
            checked(token(CLAIMS, crit=crit))
