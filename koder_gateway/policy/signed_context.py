"""X-Koder-Context: whose request it is and from where, signed, so that a service can check that the gateway says so.

It is a compact JWS (RFC 7515) with the claims of RFC 7519: `iss`, `iat` and `exp`, and `tenant` (the slug), `ip`
(the client's address, "unknown" if it is not certain, or the client has none) and `host` (the request's Host in
lower case, without port). Its `typ` keeps it apart from other tokens (RFC 8725 section 3.11), and `kid` names the
key (RFC 7638 thumbprint). The algorithm is that of the key: EdDSA for Ed25519 (RFC 8037), ES256 for P-256.
`koder_gateway.context` checks it.

Signing takes about 50 us, so one is signed for each client, tenant and host, when it is first used, and used for half
of its life. The wall clock decides: after it has been set, forwards or back, the next use signs anew.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Final

from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

from .signing_keys import SigningKey

HEADER: Final = "X-Koder-Context"
TYPE: Final = "koder-context+jwt"
ISSUER: Final = "koder-gateway"
# Seconds: how long one is valid, and for how long it is used.
LIFE: Final = 60
RENEWAL: Final = LIFE / 2
# How many clients' contexts are kept signed; a connection keeps its own as long as it is open.
_KEPT: Final = 8192
_NEVER: Final = float("-inf")


class AlgorithmRegistry(JWSRegistry):
    """The two algorithms. RFC 9864 gives EdDSA with Ed25519 a name of its own, which few libraries know, so the old
    name is used, and joserfc's warning of it left out."""

    def get_alg(self, name: str) -> Any:
        """The algorithm of this name; UnsupportedAlgorithmError if it is neither of the two."""
        return self.algorithms[name] if name in ("EdDSA", "ES256") else super().get_alg(name)


ALGORITHMS: Final = AlgorithmRegistry(algorithms=("EdDSA", "ES256"))


def imported(key: SigningKey) -> OKPKey | ECKey:
    """The key as joserfc has it."""
    kind = OKPKey if key.algorithm == "EdDSA" else ECKey
    return kind.import_key(key.pem)


def public_jwk(key: SigningKey) -> dict[str, Any]:
    """The JWK (RFC 7517) of a key: its public members, its thumbprint as `kid`, and what it is for."""
    known = imported(key)
    return {**known.as_dict(private=False), "kid": known.thumbprint(), "use": "sig", "alg": key.algorithm}


class SignedField:
    """The finished field line for one client, tenant and host."""

    __slots__ = ("_claims", "_line", "_signed", "_signer")

    def __init__(self, signer: ContextSigner, claims: dict[str, str]) -> None:
        self._signer = signer
        self._claims = claims
        self._signed = _NEVER
        self._line = b""

    def line(self) -> bytes:
        """The line, valid for half of a token's life at least."""
        now = self._signer.clock()
        if not 0.0 <= now - self._signed < RENEWAL:
            self._line = self._signer.sign(self._claims, int(now))
            self._signed = now
        return self._line


class ContextSigner:
    """Signs with one key; publishes it, and `others`, which services accept as well: the next key before a change,
    the previous one after it. `clock` gives seconds since the epoch."""

    __slots__ = ("_algorithm", "_begin", "_kept", "_key", "clock", "jwks")

    def __init__(self, key: SigningKey, others: Sequence[SigningKey], clock: Callable[[], float]) -> None:
        public = public_jwk(key)
        self.clock = clock
        self._algorithm = ALGORITHMS.get_alg(key.algorithm)
        self._key = imported(key)
        self._begin = _encoded({"alg": public["alg"], "kid": public["kid"], "typ": TYPE}) + b"."
        self._kept: dict[tuple[bytes, bytes, bytes], SignedField] = {}
        published = {each["kid"]: each for each in (public, *map(public_jwk, others))}
        self.jwks = json.dumps({"keys": list(published.values())}).encode() + b"\n"
        """The JWK Set (RFC 7517 section 5) of the published keys."""

    def field(self, address: bytes, tenant: bytes, host: bytes) -> SignedField:
        """The field of this client's requests for this tenant at this host (`policy.tenants.bare_host`)."""
        key = (address, tenant, host)
        found = self._kept.get(key)
        if found is None:
            claims = {"tenant": tenant.decode("ascii"), "ip": address.decode("ascii"), "host": host.decode("latin-1")}
            found = SignedField(self, claims)
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = found
        return found

    def sign(self, claims: dict[str, str], now: int) -> bytes:
        """The field line with these claims, issued now."""
        signed = self._begin + _encoded({"iss": ISSUER, "iat": now, "exp": now + LIFE, **claims})
        signature = urlsafe_b64encode(self._algorithm.sign(signed, self._key)).rstrip(b"=")
        return b"X-Koder-Context: %b.%b\r\n" % (signed, signature)


def _encoded(members: dict[str, Any]) -> bytes:
    return urlsafe_b64encode(json.dumps(members, separators=(",", ":")).encode()).rstrip(b"=")
