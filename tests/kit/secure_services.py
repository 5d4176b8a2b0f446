"""Services that speak TLS: each connection is a script that a thread plays."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kit.authority import Pair
from tests.kit.waiting import PATIENCE

Script = Callable[["Talk"], None]
_RESET = struct.pack("ii", 1, 0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Talk:
    """One connection of a service, after its handshake."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self.secured = secured
        self._rest = b""

    def head(self) -> bytes:
        """The next request's head; b"" at the end of the connection."""
        while b"\r\n\r\n" not in self._rest:
            data = self.secured.recv(65536)
            if not data:
                return b""
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def body(self, size: int) -> bytes:
        """So many bytes of a request's body."""
        parts, self._rest = [self._rest[:size]], self._rest[size:]
        missing = size - len(parts[0])
        while missing > 0:
            data = self.secured.recv(min(missing, 1 << 18))
            assert data, "the body was cut"
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Send."""
        self.secured.sendall(data)

    def goodbye(self) -> None:
        """Say close_notify and close."""
        with contextlib.suppress(OSError):
            self.secured.unwrap().close()

    def cut(self) -> None:
        """Close without close_notify."""
        socket.socket(fileno=self.secured.detach()).close()

    def reset(self) -> None:
        """Close with a reset."""
        bare = socket.socket(fileno=self.secured.detach())
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        bare.close()


def answering(answer: bytes = OK) -> Script:
    """Every request of a connection gets this answer."""

    def play(talk: Talk) -> None:
        while talk.head():
            talk.send(answer)

    return play


class SecureService:
    """Listens on a free port of 127.0.0.1. `handshakes` has for each whether it was resumed, `names` the server
    names that were asked for, `refused` what OpenSSL said of those that failed; `shown` the clients' certificates."""

    def __init__(
        self,
        pair: Pair | None,
        script: Script | None = None,
        *,
        version: ssl.TLSVersion | None = None,
        clients: Path | None = None,
        alpn: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        bare: Callable[[socket.socket], None] | None = None,
        change: Callable[[ssl.SSLContext], Any] | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self.script = script or answering()
        self.handshakes: list[bool] = []
        self.names: list[str | None] = []
        self.refused: list[str] = []
        self.shown: list[Any] = []
        self.spoken: list[str | None] = []
        self.faults: list[BaseException] = []
        self._bare = bare
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if pair is not None:
            self._context.load_cert_chain(pair.both)
        if version is not None:
            self._context.minimum_version = self._context.maximum_version = version
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients)
        if alpn:
            self._context.set_alpn_protocols(list(alpn))
        self._context.sni_callback = self._named
        if change is not None:
            change(self._context)
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer:
            # What it accepts has the same.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._stopping = False
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> SecureService:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.stop()
        if kind is None and self.faults:
            raise self.faults[0]

    def stop(self) -> None:
        """Close everything and end the threads."""
        with self._lock:
            self._stopping = True
            for each in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a service's script stands still"
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _named(self, _socket: object, name: str | None, _context: object) -> None:
        self.names.append(name)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            self._start(self._serve, connection)

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.append(connection)
            if self._stopping:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        if self._bare is not None:
            self._keep(connection)
            with connection, contextlib.suppress(OSError):
                self._bare(connection)
            return
        secured = self._context.wrap_socket(
            connection, server_side=True, suppress_ragged_eofs=False, do_handshake_on_connect=False
        )
        self._keep(secured)
        try:
            secured.do_handshake()
        except OSError as error:
            self.refused.append(str(error))
            secured.close()
            return
        self.handshakes.append(secured.session_reused is True)
        self.shown.append(secured.getpeercert())
        self.spoken.append(secured.selected_alpn_protocol())
        try:
            self.script(Talk(secured))
        except OSError:
            pass
        except BaseException as fault:
            self.faults.append(fault)
        finally:
            secured.close()
