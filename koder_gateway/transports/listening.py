"""Ports: bound and stopped by Twisted, accepting and serving through uvloop."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import resource
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IFileDescriptorReceiver, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from koder_gateway.reactor.adopted_sockets import AdoptingUNIXPort
from koder_gateway.reactor.descriptor_shortage import shortage
from koder_gateway.transports import addresses
from koder_gateway.transports.socket_adoption import hand_over
from koder_gateway.transports.stream import StreamTransport
from koder_gateway.transports.unix import UNIXStreamTransport

# Seconds until a port without descriptors or memory tries to accept again.
_RETRY = 0.1

# How many connections one iteration of the loop accepts before other work runs.
_BATCH = 64

# uvloop accepts one connection in an iteration of the loop. How many more are accepted after it, and for how many
# seconds at most.
_FOLLOWERS = 32
_LONGEST = 0.002
# The same on a socket that other processes accept on too: what one leaves in the queue is another one's. With more, a
# burst of connections would go to whoever wakes first.
_SHARED_FOLLOWERS = 2
# Seconds until the port checks again for waiting connections, once all are accepted. Checking after each connection
# would make handshakes one percent more expensive, and if iterations are shorter than this, uvloop's one connection
# in each is enough.
_ALONE = 0.005

# Descriptors reserved for everything else in the process.
_RESERVE = 64
# Of how many connections one is asked for its descriptor, which takes two system calls: far fewer than are reserved.
_LOOK = 16

# accept(2): the system is out of some resource; waiting connections can stay in the backlog.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# accept(2): this connection is dead or forbidden; the next may be fine.
_STILLBORN = (errno.ECONNABORTED, errno.EPERM, errno.EPROTO)

_log = Logger()


class _Server(StreamTransport):
    """A connection that a port accepted."""

    def __init__(self, port: Any) -> None:
        super().__init__(port.reactor)
        self._port = port
        self.sessionno = port.sessionno
        port.sessionno += 1

    def __repr__(self) -> str:
        name = type(self.protocol).__name__
        port = None if self._port is None else self._port._realPortNumber
        return f"<{name} #{self.sessionno} on {port}>"

    @property
    def logstr(self) -> str:
        return f"{self.logPrefix()},{self.sessionno},{getattr(self.getPeer(), 'host', '')}"

    def _build(self) -> IProtocol | None:
        port = self._port
        try:
            if not self.sessionno % _LOOK:
                port.accepted(self.fileno())
            name = self._native.get_extra_info("peername")
        except OSError:
            name = None
        if name is None:
            return None  # the client has reset the connection already
        peer = self._peer = addresses.from_socket_name(name)
        protocol: IProtocol | None = port.factory.buildProtocol(peer)
        return protocol

    def _ended(self, reason: Failure) -> None:
        self._port = None


class _Leader(_Server):
    """A connection that uvloop accepted. Connections that wait behind it are accepted with it."""

    def connection_made(self, native: asyncio.Transport) -> None:
        port = self._port
        super().connection_made(native)
        port.admit_followers()


class _UNIXServer(UNIXStreamTransport, _Server):
    """A connection that a UNIX port accepted and built the protocol for."""

    def __init__(self, port: Any, protocol: IProtocol) -> None:
        super().__init__(port)
        self._built: IProtocol | None = protocol

    def _build(self) -> IProtocol | None:
        built, self._built = self._built, None
        return built


class _Ear(socket.socket):
    """A listening socket lent to uvloop, which detaches it when it stops listening, on request or by itself."""

    deafened: Callable[[], None]

    def detach(self) -> int:
        descriptor = super().detach()
        self.deafened()
        return descriptor


class _Accepting(ABC):
    """Accepts for a port, some connections in each iteration of the loop, and pauses while the system is exhausted.

    Twisted's port accepts and drops connections without a descriptor; here clients wait in the backlog.
    """

    reactor: Any
    socket: Any
    backlog: Any
    connected: Any
    disconnecting: Any
    _retry: Any = None
    _exhausted = False

    def doRead(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, _name = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _STILLBORN:
                    continue
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(error)
                return
            if self._exhausted:
                self._exhausted = False
                self.reactor.pauses.say(self, "resumed")
            self.admit(accepted)

    @abstractmethod
    def admit(self, accepted: socket.socket) -> None:
        """Serve this new connection."""

    def admit_waiting(self, most: int, seconds: float = math.inf) -> bool:
        """Accept waiting connections: at most so many, and for at most so long. Returns whether more may wait."""
        ends = monotonic() + seconds
        for _ in range(most):
            try:
                accepted, _name = self.socket.accept()
            except OSError as error:
                if error.errno in _STILLBORN:
                    continue
                return False
            self.admit(accepted)
            if monotonic() >= ends:
                break
        return True

    def admit_last(self) -> None:
        """Accept all waiting connections before the socket closes, which would reset them."""
        self.admit_waiting(self.backlog or socket.SOMAXCONN)

    def _pause(self, error: OSError) -> None:
        if not self._exhausted:
            self._exhausted = True
            self.reactor.pauses.say(self, f"paused: {shortage(error) or error}")
        self.stopReading()
        self._retry = self.reactor.loop.call_later(_RETRY, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if self.connected and not self.disconnecting:
            self.startReading()

    def startReading(self) -> None:
        self.reactor.addReader(self)

    def stopReading(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.reactor.removeReader(self)


class StreamPort(_Accepting, tcp.Port):
    """A TCP port.

    uvloop accepts, which takes a third less time than accepting here. But it drops a connection without a descriptor,
    and stops listening for good when the system is out of memory. So uvloop accepts only while there are spare
    descriptors for two full backlogs; otherwise, and after it has stopped by itself, connections are accepted here,
    up to `_BATCH` in an iteration of the loop.

    And uvloop accepts only one connection in an iteration: if iterations take milliseconds, others would wait for
    seconds. So up to `_FOLLOWERS` more are accepted here. (Other versions of libuv accept all waiting connections
    first; then none is left.)
    """

    shared = False
    """Whether other processes accept on the same socket, whose owner ends with them."""
    _server: Any = None
    _careful = False
    # When, on the loop's clock, to check next for waiting connections.
    _asks = -math.inf

    def startReading(self) -> None:
        if self._ceiling() < 0:
            self._careful = True
        if self._careful:
            super().startReading()
        elif self._server is None:
            self._server = self._serve()
            self.reactor.streams.add(self)

    def stopReading(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self.reactor.streams.discard(self)
            server.close()
        super().stopReading()

    def createInternetSocket(self) -> socket.socket:
        made: socket.socket = super().createInternetSocket()
        if self.interface == "::":
            # Regardless of the system's default (net.ipv6.bindv6only), every address also serves IPv4.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return made

    def reading(self) -> bool:
        """Whether uvloop accepts here at present."""
        return self._server is not None

    def connectionLost(self, reason: Failure) -> None:
        # Twisted's flag for a socket of this port's own. In a socket that was passed to the process, connections wait
        # for the next process; but a socket that all workers share ends with them.
        if self._shouldShutdown or self.shared:
            self.admit_last()
        super().connectionLost(reason)

    def admit(self, accepted: socket.socket) -> None:
        hand_over(self.reactor.loop, accepted, _Server(self))

    def admit_followers(self) -> None:
        """Accept those that wait behind one that uvloop accepted, while it accepts: not once the port stops."""
        now = self.reactor.loop.time()
        if self._server is not None and now >= self._asks:
            more = self.admit_waiting(_SHARED_FOLLOWERS if self.shared else _FOLLOWERS, _LONGEST)
            # Errors are left to uvloop.
            self._asks = now if more else now + _ALONE

    def accepted(self, descriptor: int) -> None:
        """A connection got this descriptor: always the lowest free one, so it shows how many are in use."""
        ceiling = self._ceiling()
        careful = descriptor > (ceiling // 2 if self._careful else ceiling)
        if careful is not self._careful:
            self._switch(careful)

    def _switch(self, careful: bool) -> None:
        self.stopReading()
        self._careful = careful
        if self.connected and not self.disconnecting:
            self.startReading()

    def _ceiling(self) -> int:
        """The highest descriptor in use that leaves enough for two backlogs and the reserve."""
        limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return sys.maxsize
        return limit - _RESERVE - 2 * self._backlog()

    def _backlog(self) -> int:
        return self.backlog or socket.SOMAXCONN

    def _serve(self) -> Any:
        ear = _Ear(fileno=os.dup(self.socket.fileno()))
        ear.deafened = self._deafened
        listening = self.reactor.loop.create_server(lambda: _Leader(self), sock=ear, backlog=self._backlog())
        try:
            listening.send(None)  # with a socket given, it has nothing to wait for
        except StopIteration as done:
            return done.value
        raise RuntimeError("create_server() waits")

    def _deafened(self) -> None:
        if self._server is not None and not self.reactor.loop.is_closed():
            self.reactor.pauses.say(self, "failed; it continues one connection at a time")
            self.reactor.loop.call_soon(self._switch, True)


class UNIXStreamPort(_Accepting, AdoptingUNIXPort):
    """A UNIX port.

    A protocol that receives file descriptors gets Twisted's own transport, since uvloop cannot receive them.
    """

    def startListening(self) -> None:
        if self.wantPID and self._preexistingSocket is None:
            _clear_leftovers(self._bindPath)
        super().startListening()

    shared = False

    def connectionLost(self, reason: Failure) -> None:
        if self.own or self.shared:
            self.admit_last()
        super().connectionLost(reason)

    def admit(self, accepted: socket.socket) -> None:
        try:
            protocol: Any = self.factory.buildProtocol(self._buildAddr(accepted.getpeername()))
        except Exception:
            _log.failure("while building a protocol")
            protocol = None
        if protocol is None:
            accepted.close()
        elif IFileDescriptorReceiver.providedBy(protocol):
            peer, number = accepted.getpeername(), self.sessionno
            self.sessionno += 1
            transport = unix.Server(accepted, protocol, peer, self, number, self.reactor)
            transport.protocol.makeConnection(transport)
        else:
            hand_over(self.reactor.loop, accepted, _UNIXServer(self, protocol))


def _clear_leftovers(path: bytes) -> None:
    """Remove the files that a port left at its path when its process was killed.

    Twisted checks whether the process that the lock names is running. In a container that is always PID 1, so the
    process would take itself for the other one. Whether a process listens is determined from the socket itself.
    """
    lock = os.fsencode(path) + b".lock"
    with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            os.unlink(lock)
        except FileNotFoundError:
            if os.readlink(lock) == str(os.getpid()).encode():
                os.unlink(lock)
