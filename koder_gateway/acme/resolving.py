"""Where a name leads to: asked of the system, or of a name server that the configuration names."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, Protocol

import dns.exception
import dns.resolver

# Seconds for all of one question.
_TIMEOUT: Final = 5.0


class ResolutionError(Exception):
    """A name leads nowhere; the text says why, after the name."""


class Resolver(Protocol):
    """Looks up addresses."""

    def addresses(self, name: str) -> Sequence[str]:
        """All addresses of a name, at least one. Raises ResolutionError."""


class SystemResolver:
    """Asks as any program of this machine does."""

    def addresses(self, name: str) -> Sequence[str]:
        """See `Resolver`."""
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise ResolutionError(f"cannot be resolved ({error.strerror})") from None
        except (OSError, UnicodeError):
            raise ResolutionError("cannot be resolved") from None
        return list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))


class NameServer:
    """Asks one name server, and nothing else: no hosts file, no search list."""

    def __init__(self, address: str, port: int) -> None:
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [address]
        self._resolver.port = port
        self._resolver.lifetime = _TIMEOUT

    def addresses(self, name: str) -> Sequence[str]:
        """See `Resolver`."""
        found: dict[str, None] = {}
        wrong = "has no address"
        for kind in ("A", "AAAA"):
            try:
                answer = self._resolver.resolve(f"{name}.", kind)
            except dns.resolver.NXDOMAIN:
                raise ResolutionError("does not exist") from None
            except dns.resolver.NoAnswer:
                continue
            except dns.exception.Timeout:
                wrong = f"cannot be resolved (no answer within {_TIMEOUT:g} seconds)"
            except (dns.exception.DNSException, OSError):
                wrong = "cannot be resolved (the name server fails)"
            else:
                found |= dict.fromkeys(str(each) for each in answer)
        if not found:
            raise ResolutionError(wrong)
        return list(found)


def resolver_of(server: tuple[str, int] | None) -> Resolver:
    """The one that the configuration says."""
    return SystemResolver() if server is None else NameServer(*server)
