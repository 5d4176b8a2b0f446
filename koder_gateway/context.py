"""Checks of X-Koder-Context, for services in Python: that the gateway says whose a request is, and from where.

    from koder_gateway.context import ContextError, PublishedKeys, verify

    keys = PublishedKeys(lambda: fetch("http://127.0.0.1:9100/.well-known/jwks.json"))

    try:
        context = verify(headers["X-Koder-Context"], keys, host=headers["Host"])
    except ContextError as error:
        ...  # 401: the request has not come through the gateway

It needs neither Twisted nor a running gateway. docs/context.md says what is signed, and how services in other
languages check it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from .policy.signed_context import ALGORITHMS, HEADER, ISSUER, LIFE, TYPE
from .policy.tenants import bare_host

__all__ = ["HEADER", "ContextError", "PublishedKeys", "UnknownKeyError", "VerifiedContext", "verify"]

# The longest address, slug and name of a host fit in many times.
_LONGEST: Final = 4096
# Beyond these many keys a set is not one of the gateway's.
_MOST_KEYS: Final = 64
_KINDS: Final[dict[str, tuple[type[OKPKey] | type[ECKey], str, str]]] = {
    "EdDSA": (OKPKey, "OKP", "Ed25519"),
    "ES256": (ECKey, "EC", "P-256"),
}


class ContextError(ValueError):
    """The request has no context that can be trusted; the text says why."""


class UnknownKeyError(ContextError):
    """The context names a key that is not in the set."""


@dataclass(frozen=True, slots=True)
class VerifiedContext:
    """What the gateway says of a request: the tenant's slug, the client's address ("unknown" if it is not certain, or
    the client has none), the host in lower case without port, and the seconds since the epoch of its signature."""

    tenant: str
    ip: str
    host: str
    issued: int


class KeySource(Protocol):
    """Where the key of a token is looked up."""

    def key(self, kid: str) -> Mapping[str, Any]:
        """The JWK with this `kid`. Raises UnknownKeyError, or another ContextError if no keys are at hand."""


class PublishedKeys(KeySource):
    """The gateway's JWK Set as `fetch` gets it: a dictionary, or JSON. It may be used by several threads.

    It is fetched when first needed, again after `max_age` seconds, and for a key that is not in it, but then at most
    once in `pause` seconds: whoever invents keys causes no flood. If it cannot be fetched, the keys that are known
    stay in use for `max_age` once more.
    """

    def __init__(
        self,
        fetch: Callable[[], Mapping[str, Any] | str | bytes],
        *,
        max_age: float = 300.0,
        pause: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._max_age = max_age
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._fetched = self._tried = float("-inf")

    def key(self, kid: str) -> Mapping[str, Any]:
        """The JWK with this `kid`."""
        with self._lock:
            now = self._clock()
            if now - self._fetched >= self._max_age or kid not in self._keys:
                self._refresh(now)
            if now - self._fetched >= 2 * self._max_age:
                raise ContextError("the gateway's keys cannot be fetched")
            return _key(self._keys, kid)

    def _refresh(self, now: float) -> None:
        if now - self._tried < self._pause:
            return
        self._tried = now
        try:
            self._keys = _by_kid(self._fetch())
        except Exception as error:
            if not self._keys:
                raise ContextError(f"the gateway's keys cannot be fetched: {error}") from error
        else:
            self._fetched = now


def verify(
    token: str | bytes,
    keys: Mapping[str, Any] | KeySource,
    *,
    host: str,
    tenant: str | None = None,
    now: float | None = None,
    leeway: float = 5.0,
) -> VerifiedContext:
    """What X-Koder-Context says, after every check. Raises ContextError.

    `token` is the header's value, `keys` the gateway's JWK Set as a dictionary, or `PublishedKeys`. `host` is the
    request's Host, and `tenant` the X-Tenant-ID if the service uses that. `now` is in seconds since the epoch, and
    `leeway` are the seconds by which the clocks of gateway and service may differ.
    """
    text = token.encode("ascii", "replace") if isinstance(token, str) else token
    if len(text) > _LONGEST:
        raise ContextError("the context is too long")
    try:
        claimed = jws.extract_compact(text)
        header = claimed.headers()
    except (JoseError, ValueError, TypeError) as error:
        raise ContextError(f"the context is no compact JWS: {error}") from None
    if header.get("typ") != TYPE:
        raise ContextError(f'the typ is {header.get("typ")!r}, not "{TYPE}"')
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _KINDS:
        raise ContextError(f"the algorithm is {algorithm!r}, neither EdDSA nor ES256")
    if not isinstance(kid, str):
        raise ContextError("the context names no key")
    jwk = keys.key(kid) if not isinstance(keys, Mapping) else _key(_by_kid(keys), kid)
    key = _public_key(jwk, algorithm)
    try:
        genuine = jws.validate_compact(claimed, key, registry=ALGORITHMS)
    except (JoseError, ValueError, TypeError) as error:
        raise ContextError(f"the context cannot be checked: {error}") from None
    if not genuine:
        raise ContextError("the signature is wrong")
    return _checked(
        claimed.payload, bare_host(host.encode("latin-1", "replace")).decode("latin-1"), tenant, now, leeway
    )


def _checked(payload: bytes, host: str, tenant: str | None, now: float | None, leeway: float) -> VerifiedContext:
    """The claims of a genuine token, compared with the request and the time."""
    try:
        claims = json.loads(payload)
        issuer, issued, expires = claims["iss"], claims["iat"], claims["exp"]
        found = VerifiedContext(claims["tenant"], claims["ip"], claims["host"], issued)
    except (ValueError, KeyError, TypeError) as error:
        raise ContextError(f"the context lacks a claim: {error}") from None
    texts, numbers = (found.tenant, found.ip, found.host), (issued, expires)
    if any(type(each) is not str for each in texts) or any(type(each) is not int for each in numbers):
        raise ContextError("the context has a claim of the wrong type")
    moment = time.time() if now is None else now
    if issuer != ISSUER:
        raise ContextError(f'the issuer is {issuer!r}, not "{ISSUER}"')
    if expires - issued > LIFE:
        raise ContextError(f"the context is valid for more than {LIFE} seconds")
    if moment >= expires + leeway:
        raise ContextError(f"the context expired {moment - expires:.0f} seconds ago")
    if moment < issued - leeway:
        raise ContextError(f"the context is from {issued - moment:.0f} seconds ahead; compare the clocks")
    if found.host != host:
        raise ContextError(f"the context is for the host {found.host!r}, and the request for {host!r}")
    if tenant is not None and found.tenant != tenant:
        raise ContextError(f"the context is for the tenant {found.tenant!r}, and the request for {tenant!r}")
    return found


def _by_kid(document: Mapping[str, Any] | str | bytes) -> dict[str, Mapping[str, Any]]:
    """The keys of a JWK Set by their `kid`. Raises ContextError."""
    try:
        listed = (document if isinstance(document, Mapping) else json.loads(document))["keys"]
        found = {key["kid"]: key for key in listed[:_MOST_KEYS] if isinstance(key, Mapping) and "kid" in key}
    except (ValueError, KeyError, TypeError) as error:
        raise ContextError(f"this is no JWK Set: {error!r}") from None
    return found


def _key(keys: Mapping[str, Mapping[str, Any]], kid: str) -> Mapping[str, Any]:
    found = keys.get(kid)
    if found is None:
        raise UnknownKeyError(f"the key {kid!r} is not one of the gateway's")
    return found


def _public_key(jwk: Mapping[str, Any], algorithm: str) -> OKPKey | ECKey:
    """The key of the set, if it is one for this algorithm: the token alone must not choose."""
    kind, kty, curve = _KINDS[algorithm]
    members = {"kty": kty, "crv": curve, "alg": algorithm, "use": "sig"}
    for member, right in members.items():
        if jwk.get(member, right if member in ("alg", "use") else None) != right:
            raise ContextError(f"the key {jwk.get('kid')!r} is not for {algorithm}")
    try:
        return kind.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y") if name in jwk})
    except (JoseError, ValueError, TypeError) as error:
        raise ContextError(f"the key {jwk.get('kid')!r} cannot be used: {error}") from None
