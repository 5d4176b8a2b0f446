"""Ports for programs that must be told one, and cannot say which one they have got."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LEAST = 10_000


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different. They lie below those that the kernel gives to others, so
    neither a connection nor another test takes one meanwhile."""
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(_LEAST, given)
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found
