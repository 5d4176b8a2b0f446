"""Listening sockets that are bound once, by the supervisor, and that every worker accepts on.

An endpoint asks a reactor to listen. In the supervisor that is a `PortBinder`, which only binds; in a worker it is
`InheritedPorts`, which gives it the socket that was bound for the same arguments. So every kind of endpoint works,
also those of other packages. The queue of connections belongs to the socket, and is not lost with a worker.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.lockfile import FilesystemLock
from zope.interface import implementer

Key = tuple[str, Any, str]


@implementer(IListeningPort)
@dataclass(slots=True, eq=False)
class BoundPort:
    """A socket that listens, and the arguments that it was bound for. `path` and `lock` are those of a UNIX socket
    that this process has created."""

    key: Key
    socket: socket.socket
    path: str = ""
    lock: FilesystemLock | None = None

    def startListening(self) -> None:
        """It listens already."""

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """See IListeningPort."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        made = IPv6Address if self.socket.family == socket.AF_INET6 else IPv4Address
        return made("TCP", *name[:2])

    def stopListening(self) -> None:
        """Close it here, and remove the files of a UNIX socket. Workers that have it keep accepting."""
        self.socket.close()
        if self.path:
            with suppress(OSError):
                os.unlink(self.path)
        if self.lock is not None:
            with suppress(OSError, ValueError):
                self.lock.unlock()


class PortBinder:
    """What endpoints take for a reactor while ports are bound, and nothing is accepted. `kept` are ports that were
    bound before for the same arguments, which are used again; `bound` is the result."""

    def __init__(self, kept: Iterable[BoundPort] = ()) -> None:
        self._kept = list(kept)
        self.bound: list[BoundPort] = []
        self._adopted: dict[int, socket.socket] = {}

    @property
    def left(self) -> list[BoundPort]:
        """The kept ports that nobody has asked for."""
        return list(self._kept)

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> BoundPort:
        """See IReactorTCP."""
        self.restore_adopted()
        key = ("tcp", port, interface)
        return self._again(key) or self._keep(BoundPort(key, _internet_socket(port, backlog, interface)))

    def listenSSL(
        self, port: int, factory: object, contextFactory: object, backlog: int = 50, interface: str = ""
    ) -> BoundPort:
        """See IReactorSSL."""
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str | bytes, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: object = 0
    ) -> BoundPort:
        """See IReactorUNIX."""
        self.restore_adopted()
        path = os.fsdecode(address)
        key = ("unix", path, "")
        return self._again(key) or self._keep(_unix_port(key, path, backlog, mode, locked=bool(wantPID)))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: object) -> BoundPort:
        """See IReactorSocket: a socket of systemd's, which every worker inherits under its number."""
        self.restore_adopted()
        adopted = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        self._adopted[fileDescriptor] = adopted
        return BoundPort(("adopted", fileDescriptor, ""), adopted)

    def restore_adopted(self) -> None:
        """Open systemd's sockets again, under their numbers: an endpoint closes the one that it has adopted. To be
        called before anything else takes such a number."""
        for number, adopted in self._adopted.items():
            os.dup2(adopted.fileno(), number)
            adopted.close()
        self._adopted.clear()

    def _again(self, key: Key) -> BoundPort | None:
        for port in self._kept:
            if port.key == key:
                self._kept.remove(port)
                return self._keep(port)
        return None

    def _keep(self, port: BoundPort) -> BoundPort:
        self.bound.append(port)
        return port


class InheritedPorts:
    """A reactor whose new ports accept on sockets that the supervisor has bound; everything else is the reactor's."""

    def __init__(self, reactor: Any, bound: Iterable[BoundPort]) -> None:
        self._reactor = reactor
        self._bound = list(bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See IReactorTCP."""
        return self._accept(("tcp", port, interface), interface, port, factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See IReactorSSL."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(
        self, address: str | bytes, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: object = 0
    ) -> Any:
        """See IReactorUNIX."""
        path = os.fsdecode(address)
        return self._accept(("unix", path, ""), "", path, factory)

    def _accept(self, key: Key, interface: str, port: object, factory: Any) -> Any:
        bound = next((each for each in self._bound if each.key == key), None)
        if bound is None:
            reason = OSError("the supervisor has not bound it; restart the gateway")
            raise CannotListenError(interface, port, reason)
        self._bound.remove(bound)
        made = self._reactor.adoptStreamPort(bound.socket.fileno(), bound.socket.family, factory)
        # The port has a copy.
        bound.socket.close()
        made.shared = True
        return made


def _internet_socket(port: int, backlog: int, interface: str) -> socket.socket:
    """A listening socket; "::" serves IPv4 as well. Raises CannotListenError, or OSError without such a family."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if interface == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # A scope, as in fe80::1%eth0, needs to be looked up.
        flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE if family == socket.AF_INET6 else socket.AI_PASSIVE
        host = interface or "0.0.0.0"  # noqa: S104 (what an endpoint without an interface asks for)
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)[0][4]
        made.bind(address)
        made.listen(backlog)
    except OSError as error:
        made.close()
        raise CannotListenError(interface, port, error) from None
    return made


def _unix_port(key: Key, path: str, backlog: int, mode: int, *, locked: bool) -> BoundPort:
    """A listening UNIX socket. Raises CannotListenError."""
    lock = None
    if locked:
        _clear_leftovers(path)
        lock = FilesystemLock(f"{path}.lock")
        if not lock.lock():
            raise CannotListenError(None, path, OSError("another process listens there"))
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.bind(path)
        os.chmod(path, mode)
        made.listen(backlog)
    except OSError as error:
        made.close()
        if lock is not None:
            lock.unlock()
        raise CannotListenError(None, path, error) from None
    return BoundPort(key, made, path, lock)


def _clear_leftovers(path: str) -> None:
    """Remove a socket, and its lock, on which nobody listens: its process was killed."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
            os.unlink(f"{path}.lock")
