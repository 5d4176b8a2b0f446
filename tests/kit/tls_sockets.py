"""TLS sockets for clients and services of tests that read in one thread and write in another."""

from __future__ import annotations

import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any


class SharedTlsSocket(ssl.SSLSocket):
    """A TLS socket that one thread may read while another one writes.

    OpenSSL's objects are one thread's at a time, which only some versions of Python see to: elsewhere a thread that
    reads the server's session tickets while another one sends a request may take the connection for ended. From the
    handshake on the descriptor does not block, and threads that wait do so without the lock.
    """

    _lock: threading.Lock | None = None
    _patience: float | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self._patience = super().gettimeout()
        super().settimeout(0)
        self._lock = threading.Lock()

    def gettimeout(self) -> float | None:
        return super().gettimeout() if self._lock is None else self._patience

    def settimeout(self, value: float | None) -> None:
        if self._lock is None:
            super().settimeout(value)
        else:
            self._patience = value

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def recv(self, *arguments: Any) -> bytes:
        return self._in_turn(super().recv, *arguments)

    def recv_into(self, *arguments: Any) -> int:
        return self._in_turn(super().recv_into, *arguments)

    def send(self, *arguments: Any) -> int:
        return self._in_turn(super().send, *arguments)

    def unwrap(self) -> Any:
        return self._in_turn(super().unwrap)

    def _in_turn(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self._lock is None:
            return call(*arguments)
        if self._patience == 0.0:
            with self._lock:
                return call(*arguments)
        until = None if self._patience is None else time.monotonic() + self._patience
        while True:
            try:
                with self._lock:
                    return call(*arguments)
            except (ssl.SSLWantReadError, BlockingIOError):
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            self._wait(wanted, until)

    def _wait(self, wanted: int, until: float | None) -> None:
        descriptor = self.fileno()
        if descriptor < 0:
            raise OSError("closed by another thread")
        poller = select.poll()
        poller.register(descriptor, wanted)
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not poller.poll(left):
            raise TimeoutError("timed out")


def shared(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, whose sockets threads may share."""
    context.sslsocket_class = SharedTlsSocket
    return context
