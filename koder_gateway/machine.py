"""What the machine has of what a configuration asks for: addresses, and descriptors for connections."""

from __future__ import annotations

import errno
import re
import resource
import socket
from collections.abc import Iterable
from typing import Any, Final

from .service_unit import descriptor_limit

# What the kernel says of an address that no interface has, of a family and of an interface that are not there.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV)
# What is no name that somebody could look up.
_NUMERIC: Final = re.compile(r".*[:%].*|[0-9.]+")
# What stands for no limit.
_UNLIMITED: Final = 1 << 20


def is_local(host: str) -> bool:
    """Whether one can listen on an address, as far as the kernel says. A name is looked up as a start does it: one of
    an interface (`eth0`) has no address, and that of another machine none of this one's."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        found = [] if _NUMERIC.fullmatch(host) else _looked_up(host)
    if not found:
        return False
    family, kind, _, _, address = found[0]
    try:
        with socket.socket(family, kind) as probe:
            # Port 0 is whatever is free: nothing is taken from anybody.
            probe.bind(address)
    except OSError as error:
        return error.errno not in _NOT_HERE
    return True


def _looked_up(name: str) -> list[Any]:
    """The IPv4 addresses of a name: what is bound where an interface is no address of IPv6."""
    try:
        return socket.getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []


def descriptors(folders: Iterable[str]) -> tuple[int, str]:
    """How many descriptors the gateway may have, and who says so: its unit where one is installed, else the limit of
    this process, to which the daemon raises its own."""
    limit = descriptor_limit(folders)
    if limit is not None:
        return limit
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (_UNLIMITED if hard == resource.RLIM_INFINITY else hard), "this process (ulimit -Hn)"
