"""Requests to an OpenTelemetry collector: OTLP over HTTP, each with a deadline that no answer can move.

What a failure means follows the protocol's specification (OTLP 1.x, "OTLP/HTTP Response"): a lost connection, no
answer in time and the statuses 429, 502, 503 and 504 may be tried again, all others may not.
"""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ..version import VERSION

_AGAIN: Final = frozenset((429, 502, 503, 504))
# How much of an answer is read.
_LONGEST: Final = 1 << 16
# How many characters of a system's message are passed on.
_LONGEST_REASON: Final = 200
_FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


class RefusedError(Exception):
    """The collector has not taken a batch: the text says why, in words of ours. `again`: it may be tried once more,
    after `after` seconds at least."""

    def __init__(self, reason: str, *, again: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.after = after


class _Late(Exception):
    """The deadline has passed."""


class Collector:
    """A collector at `url`, by one connection that is kept. `ca` is a PEM file, "" for the system's authorities. For
    the main thread only: deadlines are a signal's."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]], ca: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._timeout = timeout
        self._host, self._port, self._secure, self._ca = parts.hostname or "", parts.port, parts.scheme == "https", ca
        self._headers = {
            **dict(headers),
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"koder-gateway/{VERSION}",
        }
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> int:
        """Send a batch; returns how many of its spans the collector has rejected. Raises RefusedError."""
        try:
            with _deadline(self._timeout):
                status, after, answer = self._exchange(body)
        except _Late:
            self.close()
            raise RefusedError(f"no answer within {self._timeout:g} seconds", again=True) from None
        except _FAILURES as error:
            self.close()
            raise RefusedError(_reason(error), again=True) from None
        if 200 <= status < 300:
            return _rejected(answer)
        raise RefusedError(f"it answers {status}", again=status in _AGAIN, after=_seconds(after))

    def close(self) -> None:
        """Close the connection; a new one is made when it is needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, body: bytes) -> tuple[int, str, bytes]:
        if self._connection is not None:
            try:
                return self._ask(self._connection, body)
            except (ConnectionError, http.client.BadStatusLine):
                # A kept connection may have been closed meanwhile.
                self.close()
        self._connection = self._connected()
        return self._ask(self._connection, body)

    def _connected(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        context = ssl.create_default_context(cafile=self._ca or None)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)

    def _ask(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, str, bytes]:
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        answer = response.read(_LONGEST)
        if response.read(1) or response.will_close:
            self.close()
        return response.status, response.headers.get("Retry-After", ""), answer


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises _Late within the block once so many seconds have passed, whatever it waits for."""
    running = True

    def late(number: int, frame: object) -> None:
        if running:
            raise _Late

    before = signal.signal(signal.SIGALRM, late)
    # Again and again: what is raised within a destructor or a callback is lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _rejected(answer: bytes) -> int:
    """How many spans a collector has rejected of those in a request that it took ("Partial Success")."""
    try:
        return max(0, int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans))
    except DecodeError:
        # A proxy, or a collector that answers in JSON: it has taken them.
        return 0


def _seconds(after: str) -> float:
    """Retry-After in seconds (RFC 9110 section 10.2.3); 0 for a date, which nobody sends here."""
    return float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0.0


def _reason(error: Exception) -> str:
    """Why a request has failed, in one line; nothing of it is the collector's own text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"its certificate is not trusted: {error.verify_message}"
    elif isinstance(error, ssl.SSLError):
        text = f"TLS fails: {error.reason or 'the connection ends'}"
    elif isinstance(error, socket.gaierror):
        text = f"its name cannot be resolved: {error.strerror}"
    elif isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, OSError):
        text = (error.strerror or "the connection is lost").lower()
    else:
        text = "its answer is no HTTP"
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_REASON])
