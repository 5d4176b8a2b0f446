"""Reloads on request of another process, which waits for the verdict: `koder-gateway reload`.

A socket with a name by the process (unix(7), abstract: no file is left behind) takes datagrams. The kernel says who
sent one, and so the gateway hears only root and its own user, and the tool believes only that process.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_NAME: Final = "koder-gateway/"
_RELOAD: Final = b"reload"
# struct ucred: pid, uid, gid (unix(7)).
_CREDENTIALS: Final = struct.Struct("3i")
# How many may wait for a verdict, and the longest one in bytes: a datagram must fit into a socket's buffer.
_WAITING: Final = 64
_LONGEST: Final = 64 * 1024
# Seconds between two looks whether the process that is to reload still runs.
_LOOK: Final = 1.0
# Seconds until another try to ask one that has too many questions waiting.
_AGAIN: Final = 0.1


class Refused(NamedTuple):
    """A reload that was refused: a line for each reason. `partly`: some workers have reloaded all the same."""

    lines: list[str]
    partly: bool = False


def refusal_of(partly: bool) -> str:
    """How the lines of such a reload begin."""
    return "reload refused in part" if partly else "reload refused, nothing has changed"


class LeftControl(NamedTuple):
    """What a process leaves to the program that it becomes: the socket, and the addresses of those that wait for a
    verdict, in hexadecimal."""

    descriptor: int
    waiting: Sequence[str]


class ControlSocket:
    """The gateway's end. `reload` begins a reload, whose end is told to `decided`. Raises OSError if the name is
    taken or there are no such sockets. Nothing here blocks. `left` is what the program before has left: those that
    wait are told of the next reload, which somebody else begins."""

    def __init__(self, reload: Callable[[], object], left: LeftControl | None = None) -> None:
        self._reload = reload
        if left is None:
            self._socket = _open(f"\0{_NAME}{os.getpid()}")
        else:
            self._socket = socket.socket(fileno=left.descriptor)
            self._socket.setblocking(False)
            self._socket.set_inheritable(False)
        self._asked = [] if left is None else [bytes.fromhex(each) for each in left.waiting]
        # Those that came during a reload, which may have read the files before: they wait for the next one.
        self._later: list[bytes] = []
        self._busy = False

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def receive(self) -> None:
        """Take a datagram that has arrived."""
        with suppress(OSError):
            data, ancillary, _, address = self._socket.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
            _, user = _sender(ancillary)
            if data != _RELOAD or user not in (0, os.geteuid()) or not address:
                return
            waiting = self._later if self._busy else self._asked
            if len(waiting) < _WAITING:
                waiting.append(address)
                self._reload()

    def begun(self) -> None:
        """A reload has begun, on request or by a signal."""
        self._busy = True

    def decided(self, refusals: Sequence[str] | None, partly: bool = False) -> None:
        """A reload has ended; `refusals` are the reasons why it was refused, None if it was not. `partly`: see
        `Refused`."""
        told, self._asked, self._later, self._busy = self._asked, self._later, [], False
        data = _verdict(refusals, partly)
        for address in told:
            with suppress(OSError):
                self._socket.sendto(data, address)

    def left(self) -> LeftControl:
        """What the program is to get that this process becomes."""
        return LeftControl(self._socket.fileno(), [each.hex() for each in (*self._asked, *self._later)])

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _verdict(refusals: Sequence[str] | None, partly: bool) -> bytes:
    verdict = {"reloaded": refusals is None, "partly": partly}
    lines = list(refusals or ())
    while len(data := json.dumps({**verdict, "refusals": lines}).encode()) > _LONGEST:
        lines = [*(line[:1000] for line in lines[: len(lines) // 2]), "and more, which the log has"]
    return data


class NoGatewayError(Exception):
    """The process is not a gateway that can be asked; the text is one line."""


def ask_reload(pid: int) -> Refused | None:
    """Have the gateway of that process reload, and wait until it has. Returns why it has refused, None if it has not.
    Raises NoGatewayError."""
    # The kernel gives it a name of its own.
    asking = _open("")
    try:
        # Unlike select(2), poll(2) takes any descriptor: whoever asks may have thousands.
        answered = select.poll()
        answered.register(asking, select.POLLIN)
        _send(asking, pid)
        while True:
            if answered.poll(1000 * _LOOK):
                data, ancillary, _, _ = asking.recvmsg(2 * _LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
                if _sender(ancillary)[0] == pid:
                    verdict = json.loads(data)
                    # A version before does not say whether it is in part.
                    partly = verdict.get("partly", False)
                    return None if verdict["reloaded"] else Refused(list(verdict["refusals"]), partly)
            elif not _runs(pid):
                raise NoGatewayError(f"process {pid} has ended before it had reloaded; look into its log")
    except OSError as error:
        raise NoGatewayError(
            f"process {pid} is no gateway that can be asked ({error.strerror}); name the one that was started, which"
            " with several workers is their supervisor"
        ) from None
    finally:
        asking.close()


def _send(asking: socket.socket, pid: int) -> None:
    """Ask that process. Its queue is short (sysctl net.unix.max_dgram_qlen), and one that starts, or stands still,
    reads nothing. Raises OSError."""
    while True:
        try:
            asking.sendto(_RELOAD, f"\0{_NAME}{pid}")
            return
        except BlockingIOError:
            # Nothing says when there is room: the socket itself can always be written.
            time.sleep(_AGAIN)


def running_gateways() -> list[int]:
    """The processes of the gateways that can be asked, as far as this user can see."""
    with suppress(OSError):
        lines = Path("/proc/net/unix").read_text().splitlines()
        names = {line.rpartition(" ")[2] for line in lines}
        numbers = [name.removeprefix(f"@{_NAME}") for name in names if name.startswith(f"@{_NAME}")]
        return sorted(int(number) for number in numbers if number.isascii() and number.isdecimal())
    return []


def _open(name: str) -> socket.socket:
    """A socket of that name whose datagrams say who sent them. Raises OSError."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made.bind(name)
    except OSError:
        made.close()
        raise
    return made


def _sender(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """The process and the user that have sent a datagram, as the kernel says."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, user, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return pid, user
    return -1, -1


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
