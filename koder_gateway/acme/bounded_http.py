"""HTTP for the client of ACME: each request has a deadline for all of it, and answers have a bound.

The client is used to `requests`, whose timeouts are for each read and whose answers have no bound; it gets its
`Response` from here.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import requests

# Seconds for one request, from the connection to the end of the answer.
TIMEOUT: Final = 20.0
# An order, a chain or an account has a few KiB.
LONGEST_ANSWER: Final = 1 << 18
_FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


class UnreachableError(Exception):
    """There is no answer that is HTTP; the text says why, in words of ours."""


class BoundedHttp:
    """Requests of one thread, over a connection that is kept. `ca` is a PEM file, "" for the system's authorities.
    The environment's `https_proxy` and `no_proxy` are followed."""

    def __init__(self, ca: str, agent: str, timeout: float = TIMEOUT) -> None:
        self._ca = ca
        self._agent = agent
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None
        self._host = ("", 0)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], data: str | bytes | None
    ) -> requests.Response:
        """One exchange; no redirect is followed. Raises UnreachableError."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        try:
            if parts.scheme != "https" or not host:
                raise UnreachableError("it names a URL that is not https")
            deadline = time.monotonic() + self._timeout
            connection = self._connected((host, parts.port or 443), deadline)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            body = data.encode() if isinstance(data, str) else data or b""
            return self._exchange(connection, method, path, headers, body, deadline, url)
        except _FAILURES as error:
            self.close()
            raise UnreachableError(_reason(error, self._timeout)) from None

    def close(self) -> None:
        """Close the connection; a new one is made when it is needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self, host: tuple[str, int], deadline: float) -> http.client.HTTPSConnection:
        kept = self._connection
        if kept is not None and self._host == host and _is_open(kept.sock):
            return kept
        self.close()
        context = ssl.create_default_context(cafile=self._ca or None)
        proxy = "" if urllib.request.proxy_bypass(host[0]) else urllib.request.getproxies().get("https", "")
        left = max(0.001, deadline - time.monotonic())
        if proxy:
            through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            made = http.client.HTTPSConnection(
                through.hostname or "", through.port or 3128, timeout=left, context=context
            )
            made.set_tunnel(*host)
        else:
            made = http.client.HTTPSConnection(*host, timeout=left, context=context)
        self._connection, self._host = made, host
        made.connect()
        return made

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
        url: str,
    ) -> requests.Response:
        name, port = self._host
        shown = f"[{name}]" if ":" in name else name
        lines = [f"{method} {path} HTTP/1.1", f"Host: {shown}{'' if port == 443 else f':{port}'}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += [f"User-Agent: {self._agent}", f"Content-Length: {len(body)}", "Accept-Language: en", "", ""]
        head = "\r\n".join(lines).encode("ascii")
        stream: Any = _Stream(connection.sock, deadline)
        connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
        connection.sock.sendall(head + body)
        answer = http.client.HTTPResponse(stream, method=method)
        answer.begin()
        content = answer.read(LONGEST_ANSWER + 1)
        if len(content) > LONGEST_ANSWER:
            raise ValueError(f"its answer has more than {LONGEST_ANSWER >> 10} KiB")
        if answer.length:
            # The library takes what there is. Half a chain of certificates would look like one.
            raise http.client.IncompleteRead(content, answer.length)
        if answer.will_close or not answer.isclosed():
            self.close()
        return _response(answer, content, url)


def _response(answer: http.client.HTTPResponse, content: bytes, url: str) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason
    response.url = url
    for key in answer.headers:
        response.headers[key] = ", ".join(answer.headers.get_all(key, ()))
    response.raw = io.BytesIO(content)
    # RFC 8555 section 5: JSON and PEM are UTF-8.
    response.encoding = "utf-8"
    return response


class _Stream:
    """What an answer is read from, as long as the deadline lets."""

    def __init__(self, source: socket.socket, deadline: float) -> None:
        self._reader = _Reader(source, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The bytes that come."""
        return io.BufferedReader(self._reader)


class _Reader(io.RawIOBase):
    def __init__(self, source: socket.socket, deadline: float) -> None:
        self._source = source
        self._deadline = deadline

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is, or time out at the deadline, however often this is called."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._source.settimeout(left)
        return self._source.recv_into(buffer)


def _is_open(kept: socket.socket | None) -> bool:
    """Whether a kept connection was not closed meanwhile; nothing is to be read there."""
    if kept is None:
        return False
    poll = select.poll()
    poll.register(kept, select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS with it fails: {error.reason or 'the connection ends'}"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return f"it has not answered within {timeout:g} seconds"
    if isinstance(error, OSError):
        return f"it cannot be reached: {(error.strerror or 'the connection is lost').lower()}"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer is cut off"
    if isinstance(error, ValueError) and str(error).startswith("its answer"):
        return str(error)
    return "its answer is no HTTP"
