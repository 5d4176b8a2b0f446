"""Which hosts a connection's certificate is valid for, and which hosts ask for a client certificate.

A connection is bound to the certificate that it was opened with. If that belongs to one tenant or to several, a
request for another tenant's host is misdirected (RFC 9110 section 15.5.20): the client, or something between, has
mixed up two hosts. A certificate for every tenant (a wildcard below the base domain), or for none (localhost, an
internal name, the base domain alone), restricts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import HEAD_TOO_LARGE, MISDIRECTED_REQUEST, Refusal
from .tenants import TenantPolicy, bare_host

# Whether a host asks for a client's certificate, as `[tls] client_auth` says.
NONE, OPTIONAL, REQUIRED = "none", "optional", "required"
# A verified certificate goes to the service in a header of each request, and a head is bounded.
MAX_CLIENT_CERTIFICATE: Final = 12 << 10

_OTHER_CERTIFICATE: Final = MISDIRECTED_REQUEST.because(
    "The connection was opened with another host's certificate; open a new connection for this host."
)
_NOT_VERIFIED: Final = MISDIRECTED_REQUEST.because(
    "This host asks for a client certificate, and the connection was opened without one;"
    " open a new connection for this host."
)
_OUTDATED: Final = MISDIRECTED_REQUEST.because(
    "The authorities for client certificates have changed since the connection was opened; open a new connection."
)
_TOO_LARGE: Final = HEAD_TOO_LARGE.because(
    f"The client's certificate is larger than {MAX_CLIENT_CERTIFICATE} bytes, too large for a header."
)


class CertificateNames:
    """The DNS names of one certificate. Compared by identity: a renewed certificate is another object.

    It caches which tenants the names belong to, together with the mark of the tenant policy that it asked. It keeps
    only the mark, so it does not keep a registry alive, and a new policy makes the cache invalid.
    """

    __slots__ = ("__weakref__", "_exact", "_mark", "_parents", "_slugs")

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names` as in the subjectAltName, wildcards included; a name that is not ASCII matches no host."""
        known = {name.lower().removesuffix(".").encode("ascii") for name in names if name.isascii()}
        self._parents = frozenset(name[2:] for name in known if name[:2] == b"*." and b"" not in name.split(b"."))
        self._exact = frozenset(name for name in known if b"*" not in name and b"" not in name.split(b"."))
        self._mark: object = None
        self._slugs: frozenset[bytes] | None = None

    def cover(self, name: bytes) -> bool:
        """Whether the certificate is for this bare host; a wildcard is for one label (RFC 6125 section 6.4.3)."""
        return name in self._exact or name.partition(b".")[2] in self._parents

    def slugs(self, tenants: TenantPolicy) -> frozenset[bytes] | None:
        """The tenants that the names belong to; None if they are no tenant's, or every tenant's."""
        if self._mark is not tenants.mark:
            self._slugs = self._ask(tenants)
            self._mark = tenants.mark
        return self._slugs

    def _ask(self, tenants: TenantPolicy) -> frozenset[bytes] | None:
        if tenants.base in self._parents:
            return None
        owners = (tenants.owner(name) for name in self._exact)
        return frozenset(owner.wire for owner in owners if owner is not None) or None

    def foreign_wildcard(self, name: bytes, base: bytes) -> bool:
        """Whether a wildcard other than the base domain's is for this name."""
        parent = name.partition(b".")[2]
        return parent != base and parent in self._parents


_NO_NAMES: Final = CertificateNames()


@dataclass(frozen=True, slots=True, eq=False)
class TlsInfo:
    """What TLS has established with a client.

    `names` are those of the certificate that was served, `server_name` is the name that the client asked for (RFC
    6066 section 3). `client` is the client's certificate in DER, verified by the authorities with that digest
    (`ClientAuth.digest`), else b"". `version` is that of the protocol, as in b"TLSv1.3"; b"" where it is not known.
    """

    names: CertificateNames = _NO_NAMES
    server_name: bytes = b""
    client: bytes = b""
    authorities: bytes = b""
    version: bytes = b""


class ClientAuth:
    """Which hosts ask for a client's certificate.

    `patterns` are (pattern, OPTIONAL or REQUIRED): a host, `*.` and a domain for its direct subdomains, or `*`
    for every other host. `digest` names the authorities; b"" when there are none.
    """

    __slots__ = ("_exact", "_otherwise", "_parents", "digest")

    def __init__(self, patterns: Iterable[tuple[str, str]] = (), digest: bytes = b"") -> None:
        exact, parents = {}, {}
        self._otherwise = NONE
        for pattern, mode in patterns:
            name = pattern.lower().encode("ascii")
            if name == b"*":
                self._otherwise = mode
            elif name.startswith(b"*."):
                parents[name[2:]] = mode
            else:
                exact[name] = mode
        self._exact, self._parents = exact, parents
        self.digest = digest

    def __bool__(self) -> bool:
        """Whether any host asks."""
        return bool(self._exact or self._parents) or self._otherwise != NONE

    def mode(self, name: bytes) -> str:
        """The mode for a bare host; b"" is a client that sent no name."""
        mode = self._exact.get(name)
        if mode is None:
            mode = self._parents.get(name.partition(b".")[2], self._otherwise)
        return mode

    def certificate(self, host: bytes, secured: TlsInfo | None) -> bytes | Refusal:
        """The client's certificate for the service behind this Host value (RFC 9440), in DER, b"" for none; or the
        refusal of a request that may not use this connection. `secured` is None for a plain connection."""
        mode = self.mode(bare_host(host)) if self else NONE
        if mode == NONE:
            return b""
        if secured is None or not secured.client:
            return _NOT_VERIFIED if mode == REQUIRED else b""
        if secured.authorities != self.digest:
            return _OUTDATED
        if len(secured.client) > MAX_CLIENT_CERTIFICATE:
            return _TOO_LARGE
        return secured.client


def certificate_refusal(
    tenants: TenantPolicy, host: bytes, named: Sequence[bytes], secured: TlsInfo
) -> Refusal | None:
    """421 for a Host of another tenant than the connection's certificate, else None.

    `host` is the Host value as received, `named` the values of the tenant header, which name the tenant on the bare
    base domain.
    """
    names = secured.names
    slugs = names.slugs(tenants)
    if names.foreign_wildcard(secured.server_name, tenants.base):
        # Such a wildcard names no tenant, but the server name that the client asked for does.
        owner = tenants.owner(secured.server_name)
        if owner is not None:
            slugs = (slugs or frozenset()) | {owner.wire}
    if slugs is None:
        return None
    name = bare_host(host)
    if names.cover(name):
        return None
    if tenants.is_base(name):
        tenant = tenants.named(named)
    else:
        tenant = tenants.owner(name)
    return None if tenant is not None and tenant.wire in slugs else _OTHER_CERTIFICATE
