"""Whether a name leads to this gateway: looked at before an order, for which the authority would count a failure.

It does if all its addresses are this machine's, or those of the base domain; any other one must answer a challenge
that is made up for this. The former are only waited for a while, until they answer: a port may not be open yet, and a
router may keep its own clients out. Where a name leads is its owner's choice, so each look has a deadline, follows
nothing, and shows the peer nothing but the challenge.
"""

from __future__ import annotations

import ipaddress
import math
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .faults import plain
from .issued import challenge_certificate
from .resolving import ResolutionError, Resolver
from .storage import Challenge, Storage

# Addresses of one name that are looked at; one with more is held.
MAX_ADDRESSES: Final = 8
# Seconds for one of them.
_TIMEOUT: Final = 5.0
# Seconds in which addresses that are right are to answer, and between two tries; and for how long they are taken at
# their word then, after an answer and without one.
_PATIENCE: Final = 15.0
_PAUSE: Final = 1.0
_HEARD: Final = 60.0
_UNHEARD: Final = 600.0
# An answer over HTTP has a token, and headers.
_LONGEST_ANSWER: Final = 1 << 14
_ALPN: Final = "acme-tls/1"


@dataclass(frozen=True, slots=True)
class Held:
    """Why a name is not ordered, and what to do."""

    words: str
    advice: str


class SelfCheck:
    """Looks at names. `spread` is how many seconds it may take until each gateway answers a challenge."""

    def __init__(
        self,
        challenge: str,
        port: int,
        base_domain: str,
        resolver: Resolver,
        storage: Storage,
        spread: float = 0.0,
        is_own: Callable[[str], bool] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._over_http = challenge == "http-01"
        self._port = port
        self._base = base_domain
        self._resolver = resolver
        self._storage = storage
        self._spread = spread
        self._is_own = is_own or is_own_address
        self._now = now
        # Until then addresses that are right are not asked whether they answer.
        self._trusted_until = -math.inf

    def look(self, name: str, wait: Callable[[float], None]) -> Held | None:
        """Why a name is to be held, None if it leads here. `wait` sleeps for so many seconds. Raises StorageError."""
        lead = f"let {name} lead to this gateway, as by a CNAME to {self._base}"
        try:
            addresses = self._resolver.addresses(name)
        except ResolutionError as error:
            return Held(f"{name} {error}", lead)
        if len(addresses) > MAX_ADDRESSES:
            return Held(f"{name} has {len(addresses)} addresses", lead)
        others = [address for address in addresses if not self._is_own(address)]
        if others:
            try:
                known = set(self._resolver.addresses(self._base))
            except ResolutionError:
                known = set()
            others = [address for address in others if address not in known]
        if others:
            return self._probe(name, others, lead, wait)
        self._hear(name, addresses, wait)
        return None

    def _hear(self, name: str, addresses: Sequence[str], wait: Callable[[float], None]) -> None:
        """Wait for a while until addresses that are right answer, unless that was tried not long ago."""
        ends = self._now() + _PATIENCE
        while self._now() >= self._trusted_until:
            if self._probe(name, addresses, "", wait) is None:
                self._trusted_until = self._now() + _HEARD
            elif self._now() >= ends:
                self._trusted_until = self._now() + _UNHEARD
            else:
                wait(_PAUSE)

    def _probe(self, name: str, addresses: Sequence[str], lead: str, wait: Callable[[float], None]) -> Held | None:
        token = secrets.token_urlsafe(32)
        authorization = f"{token}.{secrets.token_urlsafe(32)}"
        if self._over_http:
            challenge, expected = Challenge(token, name, authorization.encode()), authorization.encode()
        else:
            pem, expected = challenge_certificate(name, authorization)
            challenge = Challenge("", name, pem)
        self._storage.answer(challenge)
        try:
            if self._spread:
                wait(self._spread)
            for address in addresses:
                wrong = self._wrong(name, address, token, expected)
                if wrong:
                    port = f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"
                    return Held(f"{name} leads to {port}, where {wrong}", lead)
        finally:
            self._storage.forget_challenge(challenge)
        return None

    def _wrong(self, name: str, address: str, token: str, expected: bytes) -> str:
        """What an address does instead of answering; "" if it answers."""
        if not _is_usable(address):
            return "nobody can be reached"
        try:
            if self._over_http:
                return _answers_http(name, (address, self._port), token, expected)
            return _answers_alpn(name, (address, self._port), expected)
        except ssl.SSLError as error:
            return f"TLS fails ({plain(error.reason or 'the connection ends', 60)})"
        except TimeoutError:
            return f"nothing answers within {_TIMEOUT:g} seconds"
        except OSError as error:
            return f"nothing answers ({plain(error.strerror or 'the connection is lost', 60).lower()})"


def is_own_address(address: str) -> bool:
    """Whether an address is one of this machine's, to which others could connect: the system would reach it from
    itself. Nothing is sent."""
    found = _address(address)
    if found.is_loopback:
        return False
    family = socket.AF_INET6 if found.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(found), 9))
            return bool(probe.getsockname()[0] == str(found))
    except OSError:
        return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; that of an IPv4 host within an IPv6 one is the former's (RFC 4291 section 2.5.5.2)."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _is_usable(text: str) -> bool:
    address = _address(text)
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)


def _answers_alpn(name: str, where: tuple[str, int], expected: bytes) -> str:
    """As an authority looks (RFC 8737 section 3), but for the certificate as a whole."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([_ALPN])
    deadline = time.monotonic() + _TIMEOUT
    with (
        socket.create_connection(where, timeout=_TIMEOUT) as connection,
        context.wrap_socket(connection, server_hostname=name, do_handshake_on_connect=False) as secure,
    ):
        secure.settimeout(max(0.001, deadline - time.monotonic()))
        secure.do_handshake()
        if secure.selected_alpn_protocol() != _ALPN:
            return f"something else ends TLS: it does not know {_ALPN}"
        if secure.getpeercert(binary_form=True) != expected:
            return "another gateway answers the challenge"
    return ""


def _answers_http(name: str, where: tuple[str, int], token: str, expected: bytes) -> str:
    """As an authority looks (RFC 8555 section 8.3), but without following a redirect."""
    host = name if where[1] == 80 else f"{name}:{where[1]}"
    lines = (f"GET /.well-known/acme-challenge/{token} HTTP/1.1", f"Host: {host}", "Connection: close", "", "")
    deadline = time.monotonic() + _TIMEOUT
    with socket.create_connection(where, timeout=_TIMEOUT) as connection:
        connection.sendall("\r\n".join(lines).encode())
        data = b""
        while expected not in data and len(data) < _LONGEST_ANSWER:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            more = connection.recv(_LONGEST_ANSWER)
            if not more:
                break
            data += more
    parts = data.split(b" ", 2)
    status = parts[1][:3].decode("latin-1") if len(parts) > 2 and data.startswith(b"HTTP/1.") else ""
    if status == "200" and expected in data:
        return ""
    return f"something else answers ({status})" if status.isdigit() else "something answers that is no HTTP"
