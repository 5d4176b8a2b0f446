"""Clients of HTTP/1.1 over sockets, which read strictly what comes back."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Any

from tests.kit.http1 import Ended, Malformed, Message, Reader
from tests.kit.tls_sockets import shared
from tests.kit.waiting import PATIENCE

BASE_DOMAIN = "id.test"
HOST = f"acme.{BASE_DOMAIN}"
RESET = struct.pack("ii", 1, 0)

_trusting = shared(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
_trusting.check_hostname = False
_trusting.verify_mode = ssl.CERT_NONE


def dial(
    port: int, *, receive_buffer: int = 0, send_buffer: int = 0, source: str = "", patience: float = PATIENCE
) -> socket.socket:
    """A connection to a port of 127.0.0.1, from the address `source`, which must be one of loopback."""
    connection = socket.socket()
    try:
        connection.settimeout(patience)
        if source:
            connection.bind((source, 0))
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        connection.connect(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def reset(connection: socket.socket) -> None:
    """Close a connection with a reset, without a word of TLS."""
    if isinstance(connection, ssl.SSLSocket):
        connection = socket.socket(fileno=connection.detach())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


class Client:
    """One connection to a gateway, read strictly: what RFC 9112 does not allow fails the test. A context manager."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader = Reader(self._receive)

    @classmethod
    def connect(
        cls,
        port: int,
        *,
        secure: bool = False,
        name: str = HOST,
        context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Client:
        """Connect to a port of 127.0.0.1; `options` as for `dial`. With `secure`, over TLS to the server `name`: by
        `context`, or else by one that trusts everybody."""
        connection = dial(port, **options)
        if not secure:
            return cls(connection)
        try:
            return cls(
                (context or _trusting).wrap_socket(connection, server_hostname=name, suppress_ragged_eofs=False)
            )
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def fileno(self) -> int:
        """What to wait for in `select`."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close in order."""
        self.socket.close()

    def abort(self) -> None:
        """Close with a reset."""
        reset(self.socket)

    def end(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes, piece: int = 0) -> bool:
        """Send, in pieces of this many bytes. False when the gateway takes no more; the rest is then lost."""
        step = piece or len(data) or 1
        try:
            for position in range(0, len(data), step):
                self.socket.sendall(data[position : position + step])
        except ConnectionError:
            return False
        return True

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1") -> Message:
        """Send a whole request and read its answer."""
        self.send(request(method, path, *fields, body=body, version=version))
        return self.read(method)

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            raise Ended("reset") from None
        except ssl.SSLEOFError:
            raise Ended("cut") from None
        if not data:
            raise Ended("closed")
        return data

    def receive(self, size: int = 65536) -> bytes:
        """What comes next; raises Ended at the end."""
        return self._reader.some(size)

    def put_back(self, data: bytes) -> None:
        """Let what was received come next again."""
        self._reader.put_back(data)

    def head(self) -> Message:
        """The next head alone, interim or not."""
        return self._reader.head()

    def read(self, method: str = "GET") -> Message:
        """The final answer to a request of this method, with the interim ones before it, as far as it comes."""
        return self._reader.answer(method.encode())

    def answer(self, method: bytes = b"GET") -> Message:
        """The same, which must be whole: Malformed where it is cut short."""
        answer = self._reader.answer(method)
        if not answer.complete:
            raise Malformed(f"{answer.ended}: {answer}")
        return answer

    def interim(self) -> Message:
        """The next interim answer."""
        message = self.head()
        assert message.status < 200, message
        return message

    def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        data = bytearray()
        with contextlib.suppress(Ended):
            while True:
                data += self.receive()
        return bytes(data)

    def assert_closed(self) -> None:
        """The gateway closes the connection and says nothing more."""
        assert self.rest() == b""

    def closed(self) -> bool:
        """Whether the gateway ends the connection without another byte."""
        try:
            self.put_back(self.receive())
        except Ended:
            return True
        return False

    def waits(self) -> bool:
        """Whether there is something to read just now."""
        return bool(self._reader.rest or select.select([self.socket], [], [], 0)[0])


def first_of(clients: Sequence[Client], count: int) -> list[Client]:
    """Those of the clients that have something to read, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    while len(ready := [client for client in clients if client.waits()]) < count:
        assert time.monotonic() < deadline, f"only {len(ready)} have been answered"
        select.select([client for client in clients if client not in ready], [], [], PATIENCE)
    return ready


def request(method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """A request's bytes."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {HOST}", *fields]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
