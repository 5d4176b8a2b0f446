"""A real gateway before a recording service, and a client that speaks raw bytes to it: helpers for tests.

The gateway is a twistd process of its own. The service is a thread that keeps every byte it gets and reads it by
the strictest grammar there is: whatever is not exactly one well-formed message after the other is a fault.
"""

from __future__ import annotations

import json
import re
import select
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 15.0
HOST = b"koder.id.koder.dev"
ALLOWED = b"https://app.example.com"
TENANTS = """
[[tenant]]
slug = "koder"
domains = ["login.koder.example"]
cors_origins = ["https://koder.example"]
[[tenant]]
slug = "acme"
[[tenant]]
slug = "globex"
domains = ["login.globex.example"]
status = "suspended"
cors_origins = ["https://globex.example"]
"""
SETTINGS = """
limits = []
[tenants]
registry = "tenants.toml"
[cors]
origins = ["https://app.example.com"]
[requests]
max_body = "16KiB"
allow_trailers = ["X-Checksum", "X-Sum", "X-A", "X-B", "X-Ok"]
[timeouts]
drain = "1s"
[state]
dir = "state"
[log]
file = "access.log"
"""
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)")
_REQUEST = re.compile(rb"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e]*)")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})")
# What must never be in the log, whatever clients send.
_TROUBLE = re.compile(r"Traceback|Unhandled|#(?:error|critical)|Exception")


class Malformed(Exception):
    """Bytes that are no message."""


@dataclass
class Message:
    """One HTTP/1.1 message as it came: `raw` is all of it, field names keep their spelling."""

    start: tuple[bytes, ...]
    fields: list[tuple[bytes, bytes]]
    raw: bytes
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    connection: int = 0
    interim: list[Message] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this name, whatever its case."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        """The value of the only field of this name; None without one."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} stands {len(values)} times"
        return values[0] if values else None

    def names(self) -> list[bytes]:
        """The names of all fields in order, in lower case."""
        return [name.lower() for name, _ in self.fields]

    @property
    def method(self) -> bytes:
        return self.start[0]

    @property
    def target(self) -> bytes:
        return self.start[1]

    @property
    def status(self) -> int:
        return int(self.start[0])

    @property
    def problem(self) -> dict[str, object]:
        """The problem details (RFC 9457) of an answer of the gateway's own."""
        assert self.value(b"content-type") == b"application/problem+json"
        document: dict[str, object] = json.loads(self.body)
        assert set(document) == {"type", "title", "status", "code", "detail", "request_id"}
        assert document["status"] == self.status
        assert document["type"] == f"urn:koder-gateway:{document['code']}"
        assert document["title"] == self.start[1].decode()
        assert self.values(b"x-request-id") == [str(document["request_id"]).encode()]
        return document

    @property
    def code(self) -> object:
        return self.problem["code"]


def _read_fields(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed(f"field line {line!r}")
        fields.append((match[1], match[2]))
    return fields


def read_head(data: bytes, start: re.Pattern[bytes]) -> tuple[Message, int] | None:
    """The head at the beginning of `data` and where it ends; None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    match = start.fullmatch(first)
    if match is None:
        raise Malformed(f"start line {first!r}")
    return Message(match.groups(), _read_fields(lines), data[: end + 4]), end + 4


def read_chunks(data: bytes, position: int) -> tuple[bytes, list[tuple[bytes, bytes]], int] | None:
    """A chunked body at `position`: payload, trailers and where it ends; None while it is incomplete."""
    payload = b""
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        size = _CHUNK.fullmatch(data, position, end)
        if size is None:
            raise Malformed(f"chunk line {data[position:end]!r}")
        length = int(size[1], 16)
        position = end + 2
        if not length:
            break
        if len(data) < position + length + 2:
            return None
        if data[position + length : position + length + 2] != b"\r\n":
            raise Malformed("a chunk without an end")
        payload += data[position : position + length]
        position += length + 2
    if data[position : position + 2] == b"\r\n":
        return payload, [], position + 2
    end = data.find(b"\r\n\r\n", position)
    if end < 0:
        return None
    return payload, _read_fields(data[position:end].split(b"\r\n")), end + 4


def read_request(data: bytes) -> tuple[Message, int] | None:
    """One whole request by the strictest grammar; None while it is incomplete. Raises Malformed."""
    found = read_head(data, _REQUEST)
    if found is None:
        return None
    message, position = found
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(message.values(b"host")) != 1:
        raise Malformed("not one Host")
    if len(lengths) + len(codings) > 1:
        raise Malformed("framed twice")
    if codings:
        if codings != [b"chunked"]:
            raise Malformed(f"coding {codings!r}")
        chunks = read_chunks(data, position)
        if chunks is None:
            return None
        message.body, message.trailers, position = chunks
    elif lengths:
        if not lengths[0].isdigit():
            raise Malformed(f"length {lengths!r}")
        end = position + int(lengths[0])
        if len(data) < end:
            return None
        message.body, position = data[position:end], end
    message.raw = data[:position]
    return message, position


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\norigin"


class Origin:
    """The recording service. `answers` holds what to say by path, `ANSWER` otherwise; a path in `held` is only
    answered after `release`. `faults` tells what came that was no message; `unfinished` what is still coming."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.faults: list[str] = []
        self.answers: dict[bytes, bytes] = {}
        self.held: set[bytes] = set()
        self.connections = 0
        self._waiting: list[tuple[socket.socket, Message]] = []
        self._buffers: dict[socket.socket, bytes] = {}
        self._numbers: dict[socket.socket, int] = {}
        self._asked: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        for each in (self._listener, self._woken):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._running = False
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._buffers, self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()

    def settle(self) -> None:
        """Return once everything that lies in the kernel's buffers has been recorded."""
        done = threading.Event()
        self._asked.append(done.set)
        self._wake.send(b"x")
        assert done.wait(PATIENCE), "the recording service stands still"

    def release(self, path: bytes) -> None:
        """Answer what waits for this path, from now on at once."""

        def answer() -> None:
            self.held.discard(path)
            ready = [entry for entry in self._waiting if entry[1].target == path]
            self._waiting = [entry for entry in self._waiting if entry[1].target != path]
            for connection, message in ready:
                self._answer(connection, message)

        self._asked.append(answer)
        self._wake.send(b"x")

    def wait_for(self, path: bytes) -> Message:
        """The first message for this path, as soon as it is here."""
        with self._changed:
            found = self._changed.wait_for(lambda: [m for m in self.messages if m.target == path], PATIENCE)
        assert found, f"nothing came for {path!r}"
        return found[0]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once the condition holds; it is looked at whenever something has come or gone."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "the service never came to that"

    def forget(self) -> None:
        """Begin a new record."""
        self.messages, self.faults = [], []

    @property
    def unfinished(self) -> list[bytes]:
        """What has come of messages that are not complete."""
        return [data for data in self._buffers.values() if data]

    def _run(self) -> None:
        while self._running:
            asked, self._asked = self._asked, []
            while True:
                events = self._selector.select(0 if asked else None)
                for key, _ in events:
                    self._serve(key.fileobj)  # type: ignore[arg-type]
                with self._changed:
                    self._changed.notify_all()
                if not asked or not events:
                    break
            for each in asked:
                each()

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._woken:
            ready.recv(4096)
        elif ready is self._listener:
            connection, _ = ready.accept()
            self._buffers[connection] = b""
            self._numbers[connection] = self.connections = self.connections + 1
            self._selector.register(connection, selectors.EVENT_READ)
        else:
            try:
                data = ready.recv(1 << 20)
            except ConnectionError:
                data = b""
            if data:
                self._take(ready, self._buffers[ready] + data)
            else:
                self._close(ready)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._waiting = [entry for entry in self._waiting if entry[0] is not connection]
        del self._buffers[connection]
        connection.close()

    def _take(self, connection: socket.socket, data: bytes) -> None:
        try:
            found = read_request(data)
            if found is None:
                self._invite(connection, data)
                self._buffers[connection] = data
                return
            message, end = found
            if end < len(data):
                raise Malformed(f"{data[end:]!r} after the end of a message")
        except Malformed as error:
            self.faults.append(f"{error} in {data!r}")
            self._close(connection)
            return
        self._buffers[connection] = b""
        message.connection = self._numbers[connection]
        self.messages.append(message)
        if message.target in self.held:
            self._waiting.append((connection, message))
        else:
            self._answer(connection, message)

    def _invite(self, connection: socket.socket, data: bytes) -> None:
        """Ask for the body of a request that waits to be asked."""
        if not self._buffers[connection].count(b"\r\n\r\n") and data.endswith(b"\r\n\r\n"):
            found = read_head(data, _REQUEST)
            if found is not None and found[0].values(b"expect"):
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, connection: socket.socket, message: Message) -> None:
        answer = self.answers.get(message.target.partition(b"?")[0], ANSWER)
        if message.method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        try:
            connection.sendall(answer)
        except ConnectionError:
            self._close(connection)


_trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_trusting.check_hostname = False
_trusting.verify_mode = ssl.CERT_NONE


class Client:
    """One connection to a gateway; a context manager."""

    def __init__(self, port: int, *, secure: bool = False) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            self._socket = _trusting.wrap_socket(self._socket, server_hostname=HOST.decode())
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """What to wait for in `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def send(self, data: bytes, piece: int = 0) -> bool:
        """Send, in pieces of this many bytes. False when the gateway takes no more; the rest is then lost."""
        step = piece or len(data) or 1
        try:
            for position in range(0, len(data), step):
                self._socket.sendall(data[position : position + step])
        except ConnectionError:
            return False
        return True

    def end(self) -> None:
        """Send no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)

    def answer(self, method: bytes = b"GET") -> Message:
        """The next final answer, with the interim ones before it. Raises Malformed, also when it is cut short."""
        interim: list[Message] = []
        while True:
            found = read_head(self._buffer, _STATUS)
            if found is None:
                if not self._more():
                    raise Malformed(f"closed after {self._buffer!r}")
                continue
            message, position = found
            if message.status >= 200:
                break
            interim.append(message)
            self._buffer = self._buffer[position:]
        message.interim = interim
        end = self._read_body(message, position, method)
        message.raw, self._buffer = self._buffer[:end], self._buffer[end:]
        return message

    def interim(self) -> Message:
        """The next interim answer."""
        while (found := read_head(self._buffer, _STATUS)) is None:
            if not self._more():
                raise Malformed(f"closed after {self._buffer!r}")
        message, position = found
        assert message.status < 200, message
        self._buffer = self._buffer[position:]
        return message

    def _read_body(self, message: Message, position: int, method: bytes) -> int:
        if method == b"HEAD" or message.status in (204, 304):
            return position
        lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed("framed twice")
        if codings:
            while (chunks := read_chunks(self._buffer, position)) is None:
                if not self._more():
                    raise Malformed("cut within its chunks")
            message.body, message.trailers, position = chunks
            return position
        end = position + int(lengths[0]) if lengths else sys.maxsize
        while len(self._buffer) < end:
            if not self._more():
                if lengths:
                    raise Malformed("cut within its length")
                end = len(self._buffer)
        message.body = self._buffer[position:end]
        return end

    def waits(self) -> bool:
        """Whether there is something to read just now."""
        return bool(self._buffer or select.select([self._socket], [], [], 0)[0])

    def closed(self) -> bool:
        """Whether the gateway ends the connection without another byte."""
        return not self._buffer and not self._more() and not self._buffer


def first_of(clients: Sequence[Client], count: int) -> list[Client]:
    """Those of the clients that have something to read, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    while len(ready := [client for client in clients if client.waits()]) < count:
        assert time.monotonic() < deadline, f"only {len(ready)} have been answered"
        select.select([client for client in clients if client not in ready], [], [], PATIENCE)
    return ready


@dataclass
class Running:
    """A gateway in a process of its own, before `origin`."""

    port: int
    origin: Origin
    folder: Path
    process: subprocess.Popen[bytes]
    secure: bool = False
    _fences: int = 0

    def client(self) -> Client:
        """A new connection."""
        return Client(self.port, secure=self.secure)

    def ask(self, data: bytes, method: bytes = b"GET", piece: int = 0) -> Message:
        """The only answer to these bytes on a connection of their own."""
        with self.client() as client:
            client.send(data, piece)
            return client.answer(method)

    def log(self) -> str:
        """What the gateway has logged so far, apart from the access log."""
        return (self.folder / "twistd.log").read_text() + (self.folder / "output").read_text()

    def received(self) -> list[Message]:
        """What the service has received since it last forgot, once no more of it can be on its way."""
        self._fences += 1
        fence = b"/v1/users/fence/%d" % self._fences
        assert self.ask(request(fence)).status == 200
        self.origin.settle()
        assert self.origin.faults == []
        return [message for message in self.origin.messages if not message.target.startswith(b"/v1/users/fence/")]

    def assert_quiet(self) -> None:
        """Nothing of what happened was a surprise to the gateway."""
        assert self.process.poll() is None, self.log()
        assert _TROUBLE.search(self.log()) is None, self.log()


def request(
    target: bytes = b"/v1/users", method: bytes = b"GET", fields: bytes = b"", body: bytes = b"", host: bytes = HOST
) -> bytes:
    """A request; `fields` are whole lines, and a body gets its Content-Length."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (method, target, host, fields, length, body)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _configure(folder: Path, origin: Origin, settings: str, tenants: str) -> Path:
    url = f"http://127.0.0.1:{origin.port}"
    if "[services" not in settings:
        names = ("identity", "auth", "oauth2", "session", "admin")
        settings += "[services]\n" + "".join(f'{name} = "ORIGIN"\n' for name in names)
    path = folder / "gateway.toml"
    path.write_text(settings.replace("ORIGIN", url))
    (folder / "tenants.toml").write_text(tenants)
    return path


def _launch(path: Path, endpoint: str) -> subprocess.Popen[bytes]:
    twistd = "from twisted.scripts.twistd import run; run()"
    command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "--logfile=twistd.log", "koder-gateway"]
    with (path.parent / "output").open("wb") as output:
        return subprocess.Popen(
            [*command, "--config", str(path), "--port", endpoint],
            cwd=path.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _serves(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the gateway has come up; it either says so or ends."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if log.exists() and " serves on " in log.read_text():
            return True
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        break
    return False


def _start(path: Path, *, secure: bool) -> tuple[subprocess.Popen[bytes], int]:
    """A gateway that serves, and its port; another process may take a port first, so there are three tries."""
    for _ in range(3):
        port = free_port()
        process = _launch(path, f"{'ssl' if secure else 'tcp'}:{port}:interface=127.0.0.1")
        if _serves(process, path.parent / "twistd.log"):
            return process, port
        process.kill()
        process.wait()
    raise AssertionError("the gateway does not start: " + (path.parent / "output").read_text())


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


@contextmanager
def running(
    folder: Path, settings: str = SETTINGS, tenants: str = TENANTS, *, secure: bool = False
) -> Iterator[Running]:
    """A gateway with these settings before a recording service of its own, until the end of the block.

    All services are that one; settings that name services themselves write its address as ORIGIN.
    """
    origin = Origin()
    try:
        process, port = _start(_configure(folder, origin, settings, tenants), secure=secure)
        try:
            yield Running(port, origin, folder, process, secure)
        finally:
            _stop(process)
    finally:
        origin.stop()
