"""Attackers: many connections that each play the same script over a raw socket, in one loop.

A script is an iterator of steps: bytes that are sent as soon as the socket takes them, or seconds to wait, `inf` for
until the server closes. At its end the connection is reset, and so is one that the server has closed; after
`Attack.reconnect` seconds another one begins at the script's start. What is sent is made beforehand, so that sending
costs less than any server's reading.
"""

from __future__ import annotations

import fcntl
import heapq
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

Step = bytes | memoryview | float
Script = Callable[[], Iterable[Step]]

FOREVER = float("inf")
HOST = "acme.id.localhost"
# A TLS record: OpenSSL takes it whole or not at all.
_PIECE = 16384
# In a turn of the loop a connection sends and reads at most so often.
_TURNS = 16
_READ = 1 << 18
# Seconds that a connection may take to come about, and how often the kernel's queues are looked at.
_CONNECT = 15.0
_LOOK = 0.05
# After the attack answers are read until none has come for so many seconds, and so many at most.
_SILENCE = 0.3
_LAST_WORDS = 2.0
_BIND_ADDRESS_NO_PORT = 24
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_RESET = struct.pack("ii", 1, 0)
_STATUS_LINE = b"HTTP/1.1 "
# HEADERS and RST_STREAM.
_ANSWERS = (1, 3)


@dataclass(frozen=True)
class Attack:
    """What one attacking connection does, and what may come of it.

    `item` is the kind of fault. `transport`: "plain", "tls" (HTTP/1.1), "h2", or "raw": what comes first is no
    handshake, though the port speaks TLS. `unit` is how many bytes one request of this attack has, 0: one
    connection is one; `begin` are those that a connection begins with, which are none of a request. `counted`:
    requests are counted by their answers instead. Without `reads` nothing is ever read. `reconnect`: seconds until
    a connection that has ended is made anew. `allowance` is what a connection may hold by the configuration, in
    bytes. `handshakes`: they are the attack's point, so their cost is its own. `session`: TLS sessions are resumed.
    `seconds`: it takes that long at least. `trusted`: it comes from a proxy that the gateway believes. `honest`:
    what those beside it do, "requests" or "tunnels". `go`: the reference gateway can do that too. `answer` is what
    is asked for where that is large ("60k"): a request is then compared with a served one that asks for the same.
    """

    name: str
    item: str
    transport: str
    script: Script = field(repr=False)
    unit: float
    what: str = "request"
    begin: int = 0
    counted: bool = False
    reads: bool = True
    reconnect: float = 0.25
    allowance: int = 0
    handshakes: bool = False
    seconds: float = 0.0
    trusted: bool = False
    session: bool = False
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    honest: str = "requests"
    go: bool = True
    answer: str = ""


@dataclass
class Tally:
    """What attackers have done: connections that came about and those that did not, bytes that the server has taken
    and given, answers, connections that the server has closed.

    Of a connection that the server closes nobody knows how much of the last bytes it had read: they count as taken.
    """

    connections: int = 0
    failures: int = 0
    taken: int = 0
    received: int = 0
    answers: int = 0
    closed: int = 0


def client_context(alpn: str, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """TLS that trusts everybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    context.set_alpn_protocols([alpn])
    return context


def open_socket(address: str) -> socket.socket:
    """A socket that does not block, from that address."""
    bare = socket.socket()
    bare.setblocking(False)
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bare.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    bare.bind((address, 0))
    return bare


class _Frames:
    """Counts answers over HTTP/2: streams of which there was a HEADERS or a RST_STREAM."""

    def __init__(self) -> None:
        self._rest = b""
        self._skip = 0
        self._last = b""

    def count(self, data: bytes) -> int:
        """How many streams are answered by what has come now."""
        data = self._rest + data
        answers, place, end = 0, self._skip, len(data)
        while place + 9 <= end:
            stream = data[place + 5 : place + 9]
            if data[place + 3] in _ANSWERS and stream != self._last:
                self._last = stream
                answers += 1
            place += 9 + int.from_bytes(data[place : place + 3], "big")
        self._rest, self._skip = data[place:], max(0, place - end)
        return answers


class _Connection:
    """One attacking connection. `turn` does what is possible now and says what to wait for: an epoll mask, a time.

    Raises OSError when it is over.
    """

    def __init__(self, swarm: Swarm) -> None:
        attack = self._attack = swarm.attack
        self._swarm = swarm
        self._script: Iterator[Step] = iter(attack.script())
        self._rest = memoryview(b"")
        self._secure = attack.transport in ("tls", "h2")
        self._frames = _Frames() if attack.transport == "h2" else None
        self.open = self.ended = False
        self.sent = 0
        self._until = 0.0  # the script goes on
        self.waiting = 0  # of what was sent, not yet taken by the server, as last seen
        self.label = (0, 0)
        self.started = time.monotonic()
        self.socket = open_socket(swarm.source)
        self.socket.connect_ex(("127.0.0.1", swarm.port))

    def turn(self) -> tuple[int, float]:
        """Do what is possible now: the events to wait for, and the time when there is more to do without one."""
        if not self.open:
            wanted = self._connect()
            if wanted:
                return wanted, FOREVER
        if self._attack.reads:
            self._read()
        return self._write()

    def _connect(self) -> int:
        """The events that connecting waits for; 0 once it is done."""
        if not self.label[1]:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "not connected")
            try:
                self.socket.getpeername()
            except OSError:
                return select.EPOLLOUT
            address, port = self.socket.getsockname()
            self.label = int.from_bytes(socket.inet_aton(address), "little"), port
            if self._secure:
                swarm = self._swarm
                self.socket = swarm.context.wrap_socket(
                    self.socket, server_hostname=HOST, do_handshake_on_connect=False, session=swarm.session
                )
        if self._secure:
            try:
                self.socket.do_handshake()  # type: ignore[attr-defined]
            except ssl.SSLWantReadError:
                return select.EPOLLIN
            except ssl.SSLWantWriteError:
                return select.EPOLLOUT
        self.open = True
        if self._attack.session:
            self._swarm.session = self.socket.session  # type: ignore[attr-defined]
        self._swarm.tally.connections += 1
        return 0

    def _read(self) -> None:
        tally = self._swarm.tally
        for _ in range(_TURNS):
            try:
                data = self.socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            if not data:
                raise ConnectionError("closed")
            tally.received += len(data)
            tally.answers += data.count(_STATUS_LINE) if self._frames is None else self._frames.count(data)

    def _write(self) -> tuple[int, float]:
        idle = select.EPOLLRDHUP | (select.EPOLLIN if self._attack.reads else 0)
        if self._swarm.ending:
            return idle, FOREVER
        for _ in range(_TURNS):
            if not self._rest:
                if self._until > time.monotonic():
                    return idle, FOREVER
                step = next(self._script, None)
                if step is None:
                    self.ended = True
                    raise ConnectionError("the script is over")
                if isinstance(step, float):
                    self._until = time.monotonic() + step
                    return idle, self._until
                self._rest = memoryview(step)
            try:
                size = self.socket.send(self._rest[:_PIECE])
            except (BlockingIOError, ssl.SSLWantWriteError):
                return idle | select.EPOLLOUT, FOREVER
            except ssl.SSLWantReadError:
                return idle | select.EPOLLIN, FOREVER
            self.sent += size
            self._rest = self._rest[size:]
        return idle | select.EPOLLOUT, FOREVER

    def unsent(self) -> int:
        """What the kernel has of it on this side."""
        room = bytearray(4)
        with suppress(OSError):
            fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, room)
        return struct.unpack("i", room)[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Reset it."""
        with suppress(OSError):
            bare = socket.socket(fileno=self.socket.detach())
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            bare.close()


def unread(port: int) -> dict[tuple[int, int], int]:
    """What the kernel holds for the server on this port to read, by its clients' addresses (proc_net_tcp)."""
    local, queues = f":{port:04X}", {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split(None, 5)
        if fields[1].endswith(local):
            address, _, number = fields[2].partition(":")
            queues[int(address, 16), int(number, 16)] = int(fields[4].rpartition(":")[2], 16)
    return queues


class Swarm:
    """So many attackers from one address before one port. `tally` may be looked at while they run."""

    def __init__(self, attack: Attack, port: int, size: int, source: str) -> None:
        self.attack = attack
        self.port = port
        self.source = source
        self.tally = Tally()
        self.ending = False
        self.session: ssl.SSLSession | None = None
        self.context = client_context("h2" if attack.transport == "h2" else "http/1.1", attack.newest)
        self.size = size
        self._poller = select.epoll()
        self._connections: dict[int, tuple[_Connection, int]] = {}
        self._due: list[tuple[float, int, int | None]] = []
        self._order = count()

    @property
    def taken(self) -> int:
        """Bytes that the server has taken so far, those of open connections as last seen. From any thread."""
        connections = list(self._connections.values())
        return self.tally.taken + sum(max(0, each.sent - each.waiting) for each, _ in connections)

    def run(self, over: Callable[[], bool]) -> Tally:
        """Attack until `over` says so. What is answered by then is read, and everything is closed."""
        for _ in range(self.size):
            self._open()
        self._loop(over)
        self._look(time.monotonic())
        self.ending = True
        self._due.clear()
        if self.attack.reads:
            self._loop(self._silence())
        for number in list(self._connections):
            self._close(number, ours=True)
        self._poller.close()
        return self.tally

    def _silence(self) -> Callable[[], bool]:
        """Says when nothing has come for a moment, or for too long something has."""
        end = time.monotonic() + _LAST_WORDS
        seen = [-1, 0.0]

        def over() -> bool:
            now = time.monotonic()
            if self.tally.received != seen[0]:
                seen[:] = self.tally.received, now
            return now > end or now - seen[1] > _SILENCE

        return over

    def _loop(self, over: Callable[[], bool]) -> None:
        looked = 0.0
        while not over():
            now = time.monotonic()
            for number, events in self._poller.poll(self._patience(now), 256):
                self._turn(number, gone=bool(events & _GONE) and not self.attack.reads)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, number = heapq.heappop(self._due)
                if number is None:
                    self._open()
                elif number in self._connections:
                    self._turn(number)
            if now - looked > _LOOK:
                looked = now
                self._look(now)

    def _patience(self, now: float) -> float:
        return max(0.0, min(self._due[0][0] - now, _LOOK)) if self._due else _LOOK

    def _later(self, when: float, number: int | None) -> None:
        heapq.heappush(self._due, (when, next(self._order), number))

    def _open(self) -> None:
        try:
            connection = _Connection(self)
        except OSError:  # no port is left just now
            self.tally.failures += 1
            self._later(time.monotonic() + 1, None)
            return
        number = connection.socket.fileno()
        self._connections[number] = connection, select.EPOLLOUT
        self._poller.register(number, select.EPOLLOUT)

    def _turn(self, number: int, *, gone: bool = False) -> None:
        connection, before = self._connections[number]
        try:
            if gone and connection.open:
                raise ConnectionError("closed")
            wanted, when = connection.turn()
        except OSError:
            self._close(number)
            self._again()
            return
        if wanted != before:
            self._connections[number] = connection, wanted
            self._poller.modify(number, wanted)
        if when != FOREVER:
            self._later(when, number)

    def _again(self) -> None:
        if self.ending:
            return
        if self.attack.reconnect:
            self._later(time.monotonic() + self.attack.reconnect, None)
        else:
            self._open()

    def _close(self, number: int, *, ours: bool = False) -> None:
        connection, _ = self._connections.pop(number)
        self._poller.unregister(number)
        if connection.open:
            self.tally.taken += max(0, connection.sent - connection.waiting)
            self.tally.closed += not (ours or connection.ended)
        else:
            self.tally.failures += 1
        connection.close()

    def _look(self, now: float) -> None:
        """See what the server has not taken yet, and give up connections that do not come about."""
        queues = unread(self.port)
        for number, (connection, _) in list(self._connections.items()):
            connection.waiting = queues.get(connection.label, 0) + connection.unsent()
            if not connection.open and now - connection.started > _CONNECT:
                self._close(number)
                self._again()
