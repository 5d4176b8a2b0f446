"""Certificates by the DNS names that they are for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .certificates import CertificateError, CertificateFile

# Of ten thousand, a handful shows how they are called.
_SHOWN = 10


class SniIndex:
    """Finds the certificate for a server name (RFC 6066 section 3) in constant time. Never changes once it is made.

    An exact name wins over a wildcard. Of two certificates for one name the one that is valid for longer is found,
    so that a renewed one takes over while the old one still lies there; one that is not valid yet only where there is
    no other. `until` is when another choice is due, in seconds since the epoch: one of those becomes valid, or the
    default expires.
    """

    __slots__ = ("_by_name", "certificates", "default", "until")

    def __init__(
        self, certificates: Sequence[CertificateFile], default: str | CertificateFile = "", now: float = math.inf
    ) -> None:
        """`default` is the certificate for unknown names, or what it is called; "": the first that is valid, the
        first of all if none is. `now` is in seconds since the epoch.

        Raises CertificateError when there is no certificate, or none that is called so.
        """
        self.certificates = tuple(certificates)
        self.default = default if isinstance(default, CertificateFile) else _called(self.certificates, default, now)
        self._by_name: dict[bytes, CertificateFile] = {}
        changes = [each.starts for each in certificates]
        if not default:
            changes.append(self.default.expires)
        self.until = min((each for each in changes if each > now), default=math.inf)
        for certificate in sorted(certificates, key=lambda each: (each.starts <= now, each.expires)):
            self._by_name.update((name.encode("ascii", "ignore"), certificate) for name in certificate.names)

    def overshadowed(self) -> Iterator[tuple[CertificateFile, CertificateFile]]:
        """Each certificate with another kind of key than that of the one that is found in its place for all its
        names, and that one: who has laid an RSA and an ECDSA certificate there wants both to serve."""
        for certificate in self.certificates:
            found = {self._by_name[name.encode("ascii", "ignore")] for name in certificate.names}
            if found and certificate not in found:
                served = next(iter(found))
                if type(served.key) is not type(certificate.key):
                    yield certificate, served

    def find(self, name: bytes) -> CertificateFile | None:
        """The certificate for a name, in any case; None when there is none."""
        name = name.lower()
        # A wildcard stands for one whole label, the leftmost (RFC 6125 section 6.4.3).
        return self._by_name.get(name) or self._by_name.get(b"*." + name.partition(b".")[2])


def _called(certificates: tuple[CertificateFile, ...], name: str, now: float) -> CertificateFile:
    if not certificates:
        raise CertificateError("no certificate to serve")
    if not name:
        return next((each for each in certificates if each.starts <= now < each.expires), certificates[0])
    for certificate in certificates:
        if certificate.name == name:
            return certificate
    known = ", ".join(certificate.name for certificate in certificates[:_SHOWN])
    more = ", ..." if len(certificates) > _SHOWN else ""
    raise CertificateError(f'tls.default: no certificate is called "{name}"; name one of {known}{more}')
