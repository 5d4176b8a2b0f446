"""Messages to systemd (sd_notify(3)): ready, reloading, stopping, keep-alive, and status.

Without NOTIFY_SOCKET nothing is sent, and a lost message is not an error: no method raises anything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends to the socket that the environment names; each message is one datagram, sent without waiting."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """`environ` defaults to the process's own."""
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._serving = self._told = ""
        self.listened = bool(self._address)
        """Whether somebody gets the messages."""
        self.watchdog_interval = _watchdog_interval(environ) if self._address else None
        """Seconds between two calls of `watchdog`, half of what systemd allows; None if it has no watchdog."""

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is complete; `figures` follow this status."""
        self._serving, self._told = status, ""
        self._send("READY=1", status)

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` ends it. The time stamp is for units of Type=notify-reload."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", status)

    def stopping(self, status: str = "") -> None:
        """The gateway is shutting down."""
        self._serving = "draining"
        self._send("STOPPING=1", status)

    def status(self, status: str) -> None:
        """One line for `systemctl status`, which `figures` follow."""
        self._serving, self._told = status, ""
        self._send("", status)

    def figures(self, requests: int, connections: int, tenants: int) -> None:
        """What is served now: requests a second, client connections, and tenants (0: no registry); sent if it has
        changed."""
        told = [
            f"{requests:,} requests/s",
            f"{connections:,} connections",
            *([f"{tenants:,} tenants"] * bool(tenants)),
        ]
        line = f"{self._serving or 'serving'}: {', '.join(told)}"
        if line != self._told:
            self._told = line
            self._send("", line)

    def watchdog(self) -> None:
        """Still alive; sent only if systemd has a watchdog."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1", "")

    def _send(self, message: str, status: str) -> None:
        if not self._address:
            return
        lines = [message] if message else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sender:
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError:
            return


def _address(name: str) -> str:
    """The socket's address: a path, or an abstract name, whose NUL is written @ in the environment."""
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    period, watched = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (period.isascii() and period.isdecimal()) or int(period) == 0 or watched not in ("", str(os.getpid())):
        return None
    return int(period) / 2_000_000
