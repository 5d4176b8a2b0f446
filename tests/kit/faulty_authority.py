"""An ACME authority whose requests a test can see, hold, and answer wrongly: a proxy before Pebble, which has the
renewal information (RFC 9773) that Pebble lacks as well."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kit.pebble import KINDS, Pebble
from tests.kit.waiting import PATIENCE, until

_RENEWAL = "draft-ari"
# Headers that belong to one connection; the proxy makes its own.
_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """One request: what it is about (`KINDS` of Pebble, or "renewal"), its method and path, and the payload of its
    JWS, if it has one."""

    kind: str
    method: str
    path: str
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass
class Fault:
    """Answers the next `times` requests of a kind: with these bytes, which are all of the response; without any the
    client waits until the end. An `endless` answer goes on until the client leaves. With `after`, the authority gets
    the request before."""

    kind: str
    answer: bytes = b""
    times: int = 1
    endless: bool = False
    after: bool = False


class Hold:
    """The requests of one kind wait, before the authority has them or, with `after`, once it has answered.

    `come` waits until one is there. Released, they go on.
    """

    def __init__(self, kind: str, *, after: bool = False) -> None:
        self.kind = kind
        self.after = after
        self._there = threading.Event()
        self._released = threading.Event()

    def come(self) -> None:
        """Wait for the first one."""
        assert self._there.wait(PATIENCE), f"no request of kind {self.kind} comes"

    def stay(self) -> None:
        """A request waits here."""
        self._there.set()
        self._released.wait(PATIENCE)

    def release(self) -> None:
        """Let those that wait go on."""
        self._released.set()


class FaultyAuthority:
    """Passes requests to `pebble`, and keeps what they were in `requests`, and in `orders` those for a new order that
    it has accepted. A context manager.

    `directory` is its URL, and so is that with a slash and anything behind it; `ca` the file that its certificate is
    from. With `renewal` it says when to renew: the function gets a certificate's id (RFC 9773 section 4.1) and gives
    the start and end of its window, in seconds since the epoch. `look_again` is the Retry-After of that answer, in
    seconds.
    """

    def __init__(self, pebble: Pebble, renewal: Callable[[str], tuple[float, float]] | None = None) -> None:
        self.pebble = pebble
        self.renewal = renewal
        self.look_again = 21600
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.orders: list[Request] = []
        self.ca = pebble.ca
        self._holds: list[Hold] = []
        self._over = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pebble.pair.certificate, pebble.pair.key)
        self._server = _server(self, context)
        self.port: int = self._server.server_address[1]
        self.directory = f"https://127.0.0.1:{self.port}/dir"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultyAuthority:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for hold in self._holds:
            hold.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    def count(self, kind: str) -> int:
        """How many requests of a kind there were."""
        return sum(each.kind == kind for each in self.requests)

    def wait_for(self, kind: str, count: int = 1) -> list[Request]:
        """The requests of a kind, once there are so many."""
        until(lambda: self.count(kind) >= count, f"{count} requests of kind {kind} come")
        return [each for each in self.requests if each.kind == kind]

    def forget(self) -> None:
        """Let go of all faults, and of what has happened so far; those who wait in a hold are let go on."""
        self.faults.clear()
        self.requests.clear()
        self.orders.clear()
        for hold in self._holds:
            hold.release()

    def ordered(self) -> list[str]:
        """The names of the orders that the authority has accepted, in their order."""
        return [identifier["value"] for each in self.orders for identifier in each.payload["identifiers"]]

    @contextlib.contextmanager
    def held(self, kind: str, *, after: bool = False) -> Iterator[Hold]:
        """Requests of this kind wait; those who still do at the end go on."""
        hold = Hold(kind, after=after)
        self._holds.append(hold)
        try:
            yield hold
        finally:
            self._holds.remove(hold)
            hold.release()

    # Of one request

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer it."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        request = _request(handler, body)
        self.requests.append(request)
        self._wait(request, after=False)
        fault = self._fault(request)
        if fault is not None and not fault.after:
            self._fail(handler, fault)
            return
        status, fields, said = self._answer(handler, request, body)
        if request.kind == "new-order" and status == 201:
            self.orders.append(request)
        self._wait(request, after=True)
        if fault is not None:
            self._fail(handler, fault)
            return
        handler.send_response_only(status)
        for name, value in fields:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(said)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(said)

    def _wait(self, request: Request, *, after: bool) -> None:
        for hold in list(self._holds):
            if (hold.kind, hold.after) == (request.kind, after):
                hold.stay()

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.kind == request.kind and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _fail(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(fault.answer)
            while fault.endless and not self._over.wait(0.01):
                handler.wfile.write(b" " * 16384)
        if not fault.answer:
            self._over.wait(PATIENCE)

    def _answer(
        self, handler: BaseHTTPRequestHandler, request: Request, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        if request.kind == "renewal" and self.renewal is not None:
            begin, end = (datetime.fromtimestamp(each, UTC).isoformat() for each in self.renewal(request.path[11:]))
            said = json.dumps({"suggestedWindow": {"start": begin, "end": end}}).encode()
            return 200, [("Content-Type", "application/json"), ("Retry-After", str(self.look_again))], said
        pebble = http.client.HTTPSConnection("127.0.0.1", self.pebble.port, context=self.pebble.context())
        with contextlib.closing(pebble):
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
            path = "/dir" if request.kind == "directory" else request.path
            pebble.request(request.method, path, body or None, headers)
            response = pebble.getresponse()
            said = response.read()
        fields = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP]
        if request.kind == "directory" and self.renewal is not None:
            links = json.loads(said)
            links["renewalInfo"] = f"https://127.0.0.1:{self.port}/{_RENEWAL}"
            said = json.dumps(links).encode()
        return response.status, fields, said


def _request(handler: BaseHTTPRequestHandler, body: bytes) -> Request:
    first = handler.path.split("/")[1]
    kind = "renewal" if first == _RENEWAL else KINDS.get(first, first)
    payload: dict[str, Any] = {}
    if body:
        encoded = json.loads(body)["payload"]
        payload = json.loads(base64.urlsafe_b64decode(encoded + "==") or b"{}")
    return Request(kind, handler.command, handler.path, payload)


def _server(authority: FaultyAuthority, context: ssl.SSLContext) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            # A client that goes, or that does not trust the certificate, is none of a test's business.
            with contextlib.suppress(OSError):
                super().handle_one_request()
                return
            self.close_connection = True

        def do_GET(self) -> None:
            authority.serve(self)

        def do_HEAD(self) -> None:
            authority.serve(self)

        def do_POST(self) -> None:
            authority.serve(self)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            # The handshake is the connection's own thread's.
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes is none of a test's business."""

    return Server(("127.0.0.1", 0), Handler)


def problem(status: str, kind: str, detail: str, *fields: str) -> bytes:
    """An authority's answer to what it refuses (RFC 8555 section 6.7)."""
    body = json.dumps({"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}).encode()
    return page(status, body, "application/problem+json", *fields)


def page(status: str, body: bytes, media: str = "text/html", *fields: str) -> bytes:
    """Any answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {media}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*head, *fields, "", ""]).encode() + body
