"""What the machine offers for a configuration: addresses, and descriptors for connections."""

from __future__ import annotations

import errno
import re
import resource
import socket
from collections.abc import Iterable
from typing import Any, Final

from .service_unit import descriptor_limit

# The kernel's errors for an address that no interface has, and for a family or an interface that does not exist.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV)
# Text that is not a name to look up.
_NUMERIC: Final = re.compile(r".*[:%].*|[0-9.]+")
# The value used for no limit.
_UNLIMITED: Final = 1 << 20


def is_local(host: str) -> bool:
    """Whether the kernel lets a process listen on an address.

    A name is looked up as a start does: the name of an interface (`eth0`) has no address, and that of another machine
    has none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        found = [] if _NUMERIC.fullmatch(host) else _looked_up(host)
    if not found:
        return False
    family, kind, _, _, address = found[0]
    try:
        with socket.socket(family, kind) as probe:
            # Port 0 is any free port, so no port is taken from another process.
            probe.bind(address)
    except OSError as error:
        return error.errno not in _NOT_HERE
    return True


def _looked_up(name: str) -> list[Any]:
    """The IPv4 addresses of a name, which are bound if an interface is not an IPv6 address."""
    try:
        return socket.getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def descriptors(folders: Iterable[str]) -> tuple[int, str]:
    """How many descriptors the gateway may have, and what sets the limit: its unit if one is installed, else the
    limit of this process, to which the daemon raises its own."""
    limit = descriptor_limit(folders)
    if limit is not None:
        return limit
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (_UNLIMITED if hard == resource.RLIM_INFINITY else hard), "this process (ulimit -Hn)"
