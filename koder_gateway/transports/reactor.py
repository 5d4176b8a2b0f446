"""The reactor: Twisted's asyncio reactor on a uvloop event loop, its stream transports uvloop's own."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvloop
from twisted.internet import process
from twisted.internet._signals import _MultiSignalHandling
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.interfaces import IReactorDaemonize
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from koder_gateway.reactor.direct_connections import Seeker, SocketName
from koder_gateway.reactor.turns import Turns
from koder_gateway.transports.connecting import StreamConnector, UNIXStreamConnector
from koder_gateway.transports.direct_connecting import DirectConnection
from koder_gateway.transports.listening import StreamPort, UNIXStreamPort
from koder_gateway.transports.pauses import AcceptPauseLog
from koder_gateway.transports.stream import StreamTransport

_log = Logger()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback of the event loop raised."""
    error = context.get("exception")
    if error is None:
        _log.error("{message}", message=context["message"])
    else:
        _log.failure("{message}", Failure(error), message=context["message"])


class _Children:
    """Reaps child processes on SIGCHLD.

    Twisted uses a wake-up descriptor, of which a process has only one, and uvloop uses it. But uvloop runs Python's
    signal handlers as soon as a signal wakes it, and that is enough.
    """

    def __init__(self, reactor: UvloopReactor) -> None:
        self._reactor = reactor

    def install(self) -> None:
        signal.signal(signal.SIGCHLD, self._reap)
        signal.siginterrupt(signal.SIGCHLD, False)
        process.reapAllProcesses()  # whoever ended before there was a handler

    def uninstall(self) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _reap(self, *_signal: object) -> None:
        self._reactor.callFromThread(process.reapAllProcesses)


@implementer(IReactorDaemonize)
class UvloopReactor(AsyncioSelectorReactor):
    """Timers, threads, signals, processes and file descriptors are Twisted's; streams are uvloop's.

    `loop` is the event loop; it is another one after the process has become a daemon. `streams` are the open
    connections, and the ports at which uvloop accepts. `turns` shares the reactor's time among connections, `pauses`
    is where ports say that they pause.
    """

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        self.streams: set[StreamTransport | StreamPort] = set()
        self.turns = Turns(self.soon)
        self.pauses = AcceptPauseLog(self)
        self._use(eventloop or uvloop.new_event_loop())
        super().__init__(self.loop)

    # IReactorFDSet: what uvloop watches belongs to the reactor as much as what Twisted does

    def getReaders(self) -> list[Any]:
        return [*super().getReaders(), *(stream for stream in self.streams if stream.reading())]

    def removeAll(self) -> list[Any]:
        """Remove all connections and ports; the caller must call `connectionLost` of each."""
        streams = list(self.streams)
        self.streams.clear()
        return [*super().removeAll(), *streams]

    def _use(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(_report)
        asyncio.set_event_loop(loop)
        self.loop = self._asyncioEventloop = loop

    def _signalsFactory(self) -> Any:
        return _MultiSignalHandling((ReactorBase._signalsFactory(self), _Children(self)))

    def sigTerm(self, number: int, frame: Any = None) -> None:
        """SIGTERM: stop in order, and let twistd exit with 0.

        On Twisted's own reactors twistd ends itself by the same signal once everything is stopped.
        """
        _log.info("Received SIGTERM, shutting down.")
        self.callFromThread(self.stop)

    def soon(self, call: Callable[[], object]) -> None:
        """Call in the next iteration of the loop, without the cost of a timer."""
        self.loop.call_soon(call)

    def connect_directly(self, target: SocketName, seeker: Seeker) -> DirectConnection:
        """Connect for `seeker`, which hears of the outcome later. Raises OSError if the system refuses at once."""
        connection = DirectConnection(self, seeker)
        connection.begin(target)
        return connection

    # IReactorDaemonize

    def beforeDaemonize(self) -> None:
        """Nothing to do: the parent only waits for its child."""

    def afterDaemonize(self) -> None:
        """Move to a new event loop: libuv does not survive a fork.

        Everything that Twisted watches and has scheduled moves along; callbacks given to the old event loop itself
        are lost.
        """
        readers, writers = dict(self._readers), dict(self._writers)
        for reader in readers:
            self.removeReader(reader)
        for writer in writers:
            self.removeWriter(writer)
        timer: Any = self._timerHandle
        if timer is not None:
            timer.cancel()
        self.loop.close()
        self._use(uvloop.new_event_loop())
        for reader in readers:
            self.addReader(reader)
        for writer in writers:
            self.addWriter(writer)
        self._scheduledAt = None
        self._reschedule()

    # IReactorTCP; IReactorSSL puts TLS on top of it

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._listen(StreamPort(port, factory, backlog, interface, self))

    def connectTCP(
        self, host: str, port: Any, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> StreamConnector:
        connector = StreamConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # IReactorUNIX

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: Any = 0) -> Any:
        return self._listen(UNIXStreamPort(address, factory, backlog, mode, self, wantPID))

    def connectUNIX(self, address: Any, factory: Any, timeout: float = 30, checkPID: Any = 0) -> UNIXStreamConnector:
        connector = UNIXStreamConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    # IReactorSocket

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """Accept on a socket that listens already; raises UnsupportedAddressFamily.

        The descriptor is duplicated: the caller may close it.
        """
        if addressFamily not in self._supportedAddressFamilies:
            raise UnsupportedAddressFamily(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return self._listen(UNIXStreamPort._fromListeningDescriptor(self, fileDescriptor, factory))
        return self._listen(StreamPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory))

    def _listen(self, port: Any) -> Any:
        port.startListening()
        return port


def install() -> None:
    """Make this reactor `twisted.internet.reactor`; raises ReactorAlreadyInstalledError."""
    from twisted.internet.main import installReactor

    installReactor(UvloopReactor())
