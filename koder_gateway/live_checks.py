"""`koder-gateway check --live`: asks the running gateway for each tenant's discovery document, as its clients would.

An identity provider whose `issuer` is not the origin that clients know is refused by them (OpenID Connect Discovery
section 4.3), and one tenant's issuer under another tenant's name is worse. So each host of each active tenant is
asked, over TLS with its name; certificates are verified, but a fault in one does not end the report.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED as ONE
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .config import ListContext, Settings
from .config.faults import shown
from .listening.endpoint_strings import address_of, expand_shorthand
from .policy.certificates import REQUIRED, ClientAuth
from .policy.tenants import Registry, Tenant
from .tenants.registry_cache import CACHE_NAME
from .tenants.tenant_list import read_cache

_DISCOVERY: Final = "/.well-known/openid-configuration"
# How many hosts are asked at once: less than one client address may have in flight.
_AT_ONCE: Final = 16
# Seconds for one host.
_PATIENCE: Final = 10.0
# A discovery document has a few KiB.
_LARGEST: Final = 1 << 20
# Faults beyond these are only counted.
MOST_FAULTS: Final = 1000
_SOON: Final = 14 * 86_400.0
_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the gateway is: the address to connect to, and whether it speaks TLS there. `port` is the one in its
    public URLs."""

    host: str
    connect: int
    secure: bool = True
    port: int = 443

    def origin(self, name: str) -> str:
        """The origin of a tenant's host."""
        return f"https://{self.authority(name)}"

    def authority(self, name: str) -> str:
        """The Host of requests to it."""
        return name if self.port == 443 else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class LiveFault:
    """What is wrong with one host of a tenant. `kind` is "certificate", "issuer", "service", or "gateway" where there
    was no HTTP response; `tenant` and `origin` are "" for what is about none alone."""

    tenant: str
    origin: str
    kind: str
    message: str

    def __str__(self) -> str:
        where = f"{self.tenant}: {self.origin}: " if self.origin else ""
        return f"live: {where}{self.kind}: {self.message}"


@dataclass(slots=True)
class LiveReport:
    """What the running gateway has answered: how many hosts were asked, the faults, and warnings."""

    asked: int
    faults: list[LiveFault]
    left_out: int
    warnings: list[str]


class LiveCheckError(Exception):
    """The gateway cannot be asked; the text says why, and what would be right."""


def place_of(settings: Settings, gateway: str, port: int) -> Place:
    """Where to ask: at `gateway` (`HOST:PORT`, or `http://HOST:PORT` without TLS), else at the first of the
    configured ports that is one of TCP. Raises LiveCheckError."""
    if gateway:
        return _named(gateway, port)
    for text in settings.listen.port:
        address = address_of(text)
        if address is None or address.kind != "tcp" or not address.port.isdecimal() or address.port == "0":
            continue
        kind = expand_shorthand(text).partition(":")[0]
        if kind == "haproxy":
            continue
        host = ("::1" if address.host == "::" else "127.0.0.1") if address.everywhere else address.host
        return Place(host, int(address.port), kind in ("ssl", "tls") or kind.startswith("tls+"), port)
    raise LiveCheckError(
        f"listen.port {shown(settings.listen.port[0])} does not say where to ask the gateway; write its address, as"
        " in --gateway 127.0.0.1:443"
    )


def _named(gateway: str, port: int) -> Place:
    scheme, _, rest = gateway.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, connect = parts.hostname, parts.port
    except ValueError:
        host = connect = None
    if not host or scheme not in ("", "http", "https") or parts.path:
        raise LiveCheckError(f'--gateway {shown(gateway)} is not an address; write one as in "127.0.0.1:443"')
    return Place(host, connect or (80 if scheme == "http" else 443), scheme != "http", port)


def hosts_to_ask(settings: Settings, only: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The slug and each host of every active tenant, or of those in `only`. Raises LiveCheckError."""
    wanted = frozenset(only)
    tenants = _tenants(settings)
    if tenants is None:
        if not wanted:
            raise LiveCheckError("there is no registry, so every slug is a tenant; name some with --tenant SLUG")
        tenants = tuple(Tenant(slug) for slug in sorted(wanted))
    unknown = wanted - {tenant.slug for tenant in tenants}
    if unknown:
        raise LiveCheckError(
            f"--tenant {shown(min(unknown))} is not in the registry, so nothing was asked; write the slug of a tenant"
        )
    idle = wanted & {tenant.slug for tenant in tenants if tenant.status != "active"}
    if idle:
        raise LiveCheckError(
            f"--tenant {shown(min(idle))} is not active, so nothing was asked; write the slug of an active tenant"
        )
    return _hosts(tenants, wanted, settings.tenants.base_domain)


def _hosts(tenants: Iterable[Tenant], wanted: frozenset[str], base_domain: str) -> Iterator[tuple[str, str]]:
    for tenant in tenants:
        if tenant.status == "active" and (not wanted or tenant.slug in wanted):
            for host in (f"{tenant.slug}.{base_domain}", *tenant.domains):
                yield tenant.slug, host.lower()


def _tenants(settings: Settings) -> Iterable[Tenant] | None:
    """The tenants of the registry file, or those that the running gateway has last read from a URL, by slug; None
    without a registry."""
    registry = settings.tenants.registry
    if not isinstance(registry, str):
        return None if settings.registered is None else _by_slug(settings.registered)
    path = settings.state.dir / CACHE_NAME
    listed = read_cache(path, registry, ListContext(settings.tenants.base_domain))
    if listed is None:
        raise LiveCheckError(
            f"{path}: the running gateway has not kept a list of tenants yet; start it, or check state.dir"
        )
    return _by_slug(listed)


def _by_slug(registry: Registry) -> list[Tenant]:
    return sorted(registry, key=lambda tenant: tenant.slug)


def check_live(
    settings: Settings, place: Place, hosts: Iterator[tuple[str, str]], authorities: Path | None, within: float
) -> LiveReport:
    """Ask for the discovery document of each host. It takes `within` seconds at most, and says which part was left.

    Raises LiveCheckError if `authorities` (PEM) cannot be read, or nothing listens at `place`.
    """
    asker = _Asker(place, authorities, ClientAuth(settings.tls.client_auth))
    report = LiveReport(0, [], 0, asker.warnings)
    end = time.monotonic() + within
    late = False
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        waiting: set[Future[list[LiveFault]]] = set()
        while True:
            late = time.monotonic() >= end
            for slug, host in () if late else islice(hosts, _AT_ONCE - len(waiting)):
                report.asked += 1
                waiting.add(threads.submit(asker.ask, slug, host))
            if not waiting:
                break
            done, waiting = wait(waiting, return_when=ONE)
            for each in done:
                _add(report, each.result())
    left = sum(1 for _ in hosts) if late else 0
    if left:
        _add(
            report,
            [LiveFault("", "", "gateway", f"{left} hosts were not asked within {within:g}s; give it --within more")],
        )
    return report


def _add(report: LiveReport, faults: list[LiveFault]) -> None:
    room = MOST_FAULTS - len(report.faults)
    report.faults += faults[:room]
    report.left_out += len(faults[room:])


class _TooLongError(Exception):
    """A response is no discovery document."""


class _Asker:
    """Asks one host at a time, from several threads."""

    def __init__(self, place: Place, authorities: Path | None, client_auth: ClientAuth) -> None:
        self._place = place
        self._client_auth = client_auth
        try:
            self._verifying = ssl.create_default_context(cafile=authorities and str(authorities))
        except (OSError, ssl.SSLError) as error:
            raise LiveCheckError(
                f"--ca {shown(str(authorities))}: {error}; write the PEM file of authorities"
            ) from None
        if authorities is not None:
            # The certificate itself may be given, as for a self-signed one.
            self._verifying.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._lenient = ssl.create_default_context()
        self._lenient.check_hostname, self._lenient.verify_mode = False, ssl.CERT_NONE
        self.warnings: list[str] = []
        self._seen: set[object] = set()
        try:
            self._connect().close()
        except OSError as error:
            where = f"{place.host}:{place.connect}"
            raise LiveCheckError(
                f"nothing answers at {where}: {_reason(error)}; start the gateway, or name its address with --gateway"
            ) from None

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._place.host, self._place.connect), _PATIENCE)

    def ask(self, tenant: str, host: str) -> list[LiveFault]:
        """The faults of one host."""
        origin = self._place.origin(host)

        def fault(kind: str, message: str) -> LiveFault:
            return LiveFault(tenant, origin, kind, message)

        if self._client_auth and self._client_auth.mode(host.encode("ascii")) == REQUIRED:
            self._warn(host, f"live: {tenant}: {origin}: requires a client certificate, so it was not asked")
            return []
        faults: list[LiveFault] = []
        end = time.monotonic() + _PATIENCE
        try:
            sock = self._open(host, lambda message: faults.append(fault("certificate", message)))
            try:
                answer = self._answer(sock, host, end)
            finally:
                sock.close()
        except TimeoutError:
            return [*faults, fault("service", f"there was no whole response within {_PATIENCE:g}s")]
        except _TooLongError:
            return [*faults, fault("service", f"the discovery document is longer than {_LARGEST >> 20} MiB")]
        except (OSError, http.client.HTTPException) as error:
            return [*faults, fault("gateway", _reason(error) + self._hint(error))]
        kind, message = _judged(*answer, origin)
        return [*faults, fault(kind, message)] if message else faults

    def _hint(self, error: Exception) -> str:
        plain = isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error)
        where = f"http://{self._place.host}:{self._place.connect}"
        return f"; is this a port without TLS? Then write --gateway {where}" if plain else ""

    def _open(self, host: str, refused: Callable[[str], None]) -> socket.socket:
        """A connection to the gateway as a client of this host. `refused` gets what is wrong with its certificate."""
        sock = self._connect()
        if not self._place.secure:
            return sock
        try:
            secured = self._verifying.wrap_socket(sock, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            refused(f"{error.verify_message or error.reason}; clients refuse it")
            return self._lenient.wrap_socket(self._connect(), server_hostname=host)
        certificate = secured.getpeercert() or {}
        left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
        if left < _SOON:
            self._warn(
                (certificate["notAfter"], certificate.get("serialNumber")),
                f"live: {host}: the certificate expires in {left // _DAY:.0f} days ({certificate['notAfter']})",
            )
        return secured

    def _warn(self, what: object, line: str) -> None:
        if what not in self._seen and len(self._seen) < MOST_FAULTS:
            self._seen.add(what)
            self.warnings.append(line)

    def _answer(self, sock: socket.socket, host: str, end: float) -> tuple[int, bytes]:
        """Status and body; TimeoutError if they are not whole in time, _TooLongError if there is too much."""
        sock.sendall(
            f"GET {_DISCOVERY} HTTP/1.1\r\nHost: {self._place.authority(host)}\r\nAccept: application/json\r\n"
            "User-Agent: koder-gateway-check\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        data = bytearray()
        while len(data) <= _LARGEST:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
        if len(data) > _LARGEST:
            raise _TooLongError
        response = http.client.HTTPResponse(_Received(bytes(data)))  # type: ignore[arg-type]
        response.begin()
        return response.status, response.read()


class _Received:
    """Bytes that have been received, as the standard library's parser wants them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        """The bytes."""
        return io.BytesIO(self._data)


def _judged(status: int, body: bytes, origin: str) -> tuple[str, str]:
    """What is wrong with an answer, by kind; ("", "") if nothing is."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    known = document if isinstance(document, dict) else {}
    if status != 200:
        code = known.get("code")
        said = f" {code}: {known.get('detail', '')}" if isinstance(code, str) else ""
        return "service", f"status {status}{shown(said)[1:-1][:300]}"
    if document is None:
        return "service", "the discovery document is not JSON"
    issuer = known.get("issuer")
    if not isinstance(issuer, str):
        return "issuer", "the discovery document has no issuer"
    if issuer != origin:
        return (
            "issuer",
            f"is {shown(issuer[:300])}, not the origin that was asked; the service must go by the request's Host",
        )
    return "", ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
