"""Honest clients: each on a connection that is kept, from an address of its own, with a request now and then."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from flood_swarm import HOST, client_context, open_socket

CLIENTS = 20
INTERVAL = 0.05
# An honest client gives a request up after so many seconds.
_PATIENCE = 12.0
_FIELDS = (
    b"Host: %b\r\nOrigin: https://app.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0\r\n"
    b"Accept: application/json\r\nAccept-Language: en-GB,en;q=0.9\r\nAuthorization: Bearer %b\r\n"
    % (HOST.encode(), b"e" * 180)
)
_PATH = b"/v1/users"
REQUEST = b"GET %b HTTP/1.1\r\n%b\r\n" % (_PATH, _FIELDS)
_UPGRADE = (
    b"GET /v1/users HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n" + _FIELDS + b"\r\n"
)
_LENGTH = b"content-length: "
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Report:
    """What honest clients got since the last report: seconds for each answer; those refused, cut or given up."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def answers(self) -> int:
        """How many were served."""
        return len(self.latencies)

    def percentile(self, share: float) -> float:
        """Seconds within which this share of all requests was served; `inf` when more than the rest failed."""
        times = sorted(self.latencies) + [float("inf")] * self.failed
        return times[min(len(times) - 1, int(len(times) * share))] if times else float("inf")


def _whole(data: bytes) -> bool:
    """Whether a whole answer to a GET is here: a head and its Content-Length."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return False
    start = head.lower().find(_LENGTH)
    return start < 0 or len(body) >= int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0])


class _Client:
    """One client. `turn` returns True for an answer that is as wished, False for another one, None for not yet.

    Raises OSError when its connection is lost.
    """

    def __init__(self, clients: Clients, address: str) -> None:
        self._clients = clients
        self._address = address
        self.due = 0.0
        self.asked = 0.0  # when the request that is under way was due; 0: none is
        self.started = False
        self._connect()

    def _connect(self) -> None:
        self._got = b""
        self._asking = b""
        self._ready = not self._clients.secure
        self.socket = open_socket(self._address)
        self.socket.connect_ex(("127.0.0.1", self._clients.port))

    def again(self) -> None:
        """Begin with a fresh connection."""
        self.close()
        self.asked, self.started = 0.0, False
        self._connect()

    def close(self) -> None:
        """Reset the connection."""
        bare = socket.socket(fileno=self.socket.detach())
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        bare.close()

    def ask(self, now: float) -> None:
        """Let a request be due now."""
        self.asked, self._asking = now, self._clients.request

    def turn(self) -> bool | None:
        """Go on as far as possible."""
        if not self.started:
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionError("not connected")
            self.socket.getpeername()
            self.started = True
            if self._clients.secure:
                self.socket = self._clients.context.wrap_socket(
                    self.socket, server_hostname=HOST, do_handshake_on_connect=False
                )
        try:
            if not self._ready:
                self.socket.do_handshake()  # type: ignore[attr-defined]
                self._ready = True
            if self._asking:
                self.socket.sendall(self._asking)
                self._asking = b""
            while True:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("closed")
                self._got += data
                if _whole(self._got):
                    return self._judge()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def _judge(self) -> bool:
        got, self._got = self._got, b""
        if self._clients.tunnels:
            if got.startswith(b"HTTP/1.1 101 "):
                self.again()
                return True
            return False
        return got.startswith(b"HTTP/1.1 200 ")


class Clients:
    """Honest clients of the port, one for each address.

    Each has a request every `interval` seconds; 0: as soon as the last one is answered. With `tunnels` each opens a
    tunnel instead, and leaves it again. With `answer` it asks for that one of the service's. `report` is what has
    happened since it was last taken.
    """

    def __init__(
        self,
        port: int,
        addresses: list[str],
        *,
        interval: float = INTERVAL,
        secure: bool = True,
        tunnels: bool = False,
        answer: str = "",
    ) -> None:
        self.port = port
        self.secure = secure
        self.tunnels = tunnels
        self.request = _UPGRADE if tunnels else REQUEST
        if answer:
            self.request = REQUEST.replace(_PATH, b"%b/%b" % (_PATH, answer.encode()), 1)
        self.context = client_context("http/1.1")
        self.report = Report()
        self._interval = interval
        self._poller = select.epoll()
        self._clients = [_Client(self, address) for address in addresses]
        self._numbers: dict[int, _Client] = {}
        now = time.monotonic()
        for place, client in enumerate(self._clients):
            client.due = now + 0.02 + interval * place / len(self._clients)
            self._watch(client)

    def _watch(self, client: _Client) -> None:
        number = client.socket.fileno()
        self._numbers[number] = client
        self._poller.register(number, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def oldest(self) -> float:
        """For how many seconds the oldest request under way has waited."""
        now = time.monotonic()
        return max((now - client.asked for client in self._clients if client.asked), default=0.0)

    def take(self) -> Report:
        """The report so far; a new one begins."""
        report, self.report = self.report, Report()
        return report

    def turn(self) -> None:
        """Do what there is to do within some milliseconds."""
        for number, _ in self._poller.poll(0.002):
            client = self._numbers.get(number)
            if client is not None:
                self._turn(client)
        now = time.monotonic()
        for client in self._clients:
            if client.asked:
                if now - client.asked > _PATIENCE:
                    self._lost(client)
            elif client.due <= now and client.started:
                client.ask(now)
                self._turn(client)

    def _turn(self, client: _Client) -> None:
        before, asked = client.socket.fileno(), client.asked
        try:
            served = client.turn()
            while served is not None and not self._interval:
                self._note(client, served, asked)
                asked = time.monotonic()
                client.ask(asked)
                served = client.turn()
        except OSError:
            self._lost(client)
            return
        if served is not None:
            self._note(client, served, asked)
        if not client.started:
            self._numbers.pop(before, None)
            self._watch(client)

    def _note(self, client: _Client, served: bool, asked: float) -> None:
        now = time.monotonic()
        if served:
            self.report.latencies.append(now - asked)
        else:
            self.report.failed += 1
        client.asked = 0.0
        # Those that were due meanwhile are one: a client waits for its answer.
        client.due = max(client.due + self._interval, now)

    def _lost(self, client: _Client) -> None:
        self._numbers.pop(client.socket.fileno(), None)
        if client.asked:
            self.report.failed += 1
        now = time.monotonic()
        client.due = max(client.due + self._interval, now + 0.02)
        client.again()
        self._watch(client)

    def run(self, over: Callable[[], bool]) -> None:
        """Go on until `over` says so."""
        while not over():
            self.turn()
        self.close()

    def close(self) -> None:
        """Leave."""
        for client in self._clients:
            client.close()
        self._poller.close()


def serve_reports(clients: Clients, control: Connection) -> None:
    """Run them, and answer what is asked by `control`: "take" with a report once nobody has waited for long (within
    `_PATIENCE` seconds), None with the end. As a process of its own."""
    if not os.getuid():
        os.nice(-5)
    asked = 0.0
    while True:
        clients.turn()
        if asked and (clients.oldest() < 0.1 or time.monotonic() - asked > _PATIENCE):
            control.send(clients.take())
            asked = 0.0
        if control.poll():
            if control.recv() is None:
                break
            asked = time.monotonic()
    clients.close()
