"""Gateways as processes of their own, raw clients before them, and services behind that play a script."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kit.tls_sockets import shared

# Much longer than anything here takes: only what hangs meets it.
PATIENCE = 20.0
BASE_DOMAIN = "id.test"
HOST = f"acme.{BASE_DOMAIN}"

# The descriptor that systemd hands over first is 3, and the environment names the process that it is for.
_HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='https');"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
_STARTED = re.compile(r" starting on ([0-9]+)")
_RESET = struct.pack("ii", 1, 0)
_TURN = 0.005


# The most that the kernel keeps of what one process has sent and another one has not read, at the end that sends and
# at the one that receives (tcp(7)), in bytes: they differ by machine. A buffer that a socket sets itself is apart.
KERNEL_SENDS, KERNEL_RECEIVES = (
    int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem")
)


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> Any:
    """The condition's value once it is true; fails with `what` when that takes too long."""
    ends = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"never happened: {what}")
        time.sleep(_TURN)


def tool(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).parent / name)


def write_certificate(folder: Path, *names: str) -> Path:
    """A key and a self-signed certificate for these names in one PEM file, which clients can trust as well."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "default.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def configuration(
    services: Mapping[str, str], sections: Mapping[str, Mapping[str, object]] | None = None, extra: str = ""
) -> str:
    """TOML with each service at `/NAME`, no limits but those in `extra`, logs and state beside the file."""
    document: dict[str, dict[str, object]] = {
        "tenants": {"base_domain": BASE_DOMAIN},
        "services": dict(services),
        "log": {"file": "access.log"},
        "state": {"dir": "state"},
        "tls": {"certificates": "certs"},
    }
    for name, section in (sections or {}).items():
        document.setdefault(name, {}).update(section)
    lines = [] if "[[limits]]" in extra else ["limits = []"]
    for name, section in document.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
    for name in services:
        lines += ["[[routes]]", f'path = "/{name}"', f'service = "{name}"']
    return "\n".join([*lines, extra, ""])


class GatewayProcess:
    """A gateway in a process of its own, configured in `folder`, where its logs are as well.

    `ports` are endpoint strings, as are `redirects`; with `admin` there is an admin port. `reactor` as for twistd,
    "" for the default one. `open_files` is its RLIMIT_NOFILE; `inherited` is a listening socket that it gets as
    systemd hands them over (sd_listen_fds(3)), called "https". A context manager: left, the process has ended and
    its log shows no traceback.
    """

    PLAIN = "tcp:0:interface=127.0.0.1"
    TLS = "ssl:0:interface=127.0.0.1"

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        ports: tuple[str, ...] = (PLAIN,),
        redirects: tuple[str, ...] = (),
        admin: bool = True,
        reactor: str = "",
        open_files: int = 0,
        command: str = "twistd",
        inherited: socket.socket | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "koder-gateway.toml"
        self.config.write_text(config)
        self.certificate = folder / "certs" / "default.pem"
        if not self.certificate.exists():
            write_certificate(folder / "certs", BASE_DOMAIN, f"*.{BASE_DOMAIN}")
        words = [tool(command)]
        words += ["--nodaemon", "--pidfile="] if command == "twistd" else []
        words += [f"--reactor={reactor}"] if reactor else []
        words += ["koder-gateway", "--config", str(self.config)]
        words += [word for port in ports for word in ("--port", port)]
        words += [word for port in redirects for word in ("--redirect-port", port)]
        words += ["--admin-port", self.PLAIN] if admin else []
        if open_files:
            words = ["/bin/sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *words]
        kept = () if inherited is None else (inherited.fileno(),)
        if inherited is not None:
            words = [sys.executable, "-c", _HAND_OVER, str(inherited.fileno()), *words]
        self.ports: list[int] = []
        self.admin = 0
        self._log = folder / "gateway.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=kept
            )
        try:
            until(self._serves, "the gateway serves")
        except BaseException:
            self.kill()
            print(self.log())
            raise
        # In the order in which they were given but for UNIX ones, the admin port last; twist's log says each twice.
        started = list(dict.fromkeys(map(int, _STARTED.findall(self.log()))))
        listening = sum("unix" not in port.lower() for port in (*ports, *redirects))
        self.ports, rest = started[:listening], started[listening:]
        assert (len(self.ports), len(rest)) == (listening, int(admin)), self.log()
        self.admin = rest[0] if rest else 0

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log()
        log = self.log()
        return " serves on " in log or '"where": ' in log

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self.process.poll() is None and kind is None:
                assert self.stop() == 0, self.log()
        finally:
            self.kill()
        if kind is None:
            self.assert_sound()

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def log(self) -> str:
        """What the process has written so far."""
        return self._log.read_text(errors="replace")

    def assert_sound(self) -> None:
        """Nothing in the log says that the gateway itself failed."""
        log = self.log()
        assert "Traceback" not in log, log
        assert "#critical" not in log, log

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """End in order; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End at once; nothing for a process that has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # What operators look at

    def ask_admin(self, path: str) -> tuple[int, str]:
        """Status and body of an admin page."""
        with Client(socket.create_connection(("127.0.0.1", self.admin), PATIENCE)) as client:
            client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
            answer = client.read()
        return answer.status, answer.body.decode()

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics page, by name and labels as written there."""
        return parse_metrics(self.ask_admin("/metrics")[1])

    def access(self) -> list[dict[str, Any]]:
        """The lines of the access log that are written so far."""
        path = self.folder / "access.log"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def memory(self, what: str) -> int:
        """Bytes of a line of /proc/PID/status, such as VmRSS, or VmHWM since `forget_peak`."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+([0-9]+) kB$", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Let VmHWM begin anew at the present VmRSS (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    # Clients

    def connect(
        self,
        door: int | None = None,
        *,
        tls: bool = False,
        receive_buffer: int = 0,
        send_buffer: int = 0,
        source: str = "",
    ) -> Client:
        """A client on the port of that number (those that redirect last), by default the first, over TLS the last;
        from the address `source`, which must be one of loopback."""
        connection = socket.socket()
        try:
            connection.settimeout(PATIENCE)
            if source:
                connection.bind((source, 0))
            if receive_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if send_buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            connection.connect(("127.0.0.1", self.ports[(-1 if tls else 0) if door is None else door]))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                return Client(self.trust().wrap_socket(connection, server_hostname=HOST, suppress_ragged_eofs=False))
        except BaseException:
            connection.close()
            raise
        return Client(connection)

    def trust(self) -> ssl.SSLContext:
        """What a client needs to trust this gateway."""
        return shared(ssl.create_default_context(cafile=str(self.certificate)))


def parse_metrics(page: str) -> dict[str, float]:
    """Every sample of a page in Prometheus' text format, by name and labels."""
    samples = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


@dataclass
class Answer:
    """One answer as a client got it. `ended`: "complete", or how its message was cut: "cut", "reset"."""

    status: int = 0
    reason: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    ended: str = ""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[Answer] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """A field's value, which must not stand twice."""
        values = [value for each, value in self.fields if each.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def complete(self) -> bool:
        """Whether the message has a clean end."""
        return self.ended == "complete"

    @property
    def code(self) -> str:
        """The code of a problem (RFC 9457); "" for any other answer."""
        if self.get("content-type") != "application/problem+json":
            return ""
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["request_id"] == self.get("x-request-id")
        return str(problem["code"])


class _End(Exception):
    """The peer has ended the connection: `how` as in `Answer.ended`."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Client:
    """One client connection, read strictly: what RFC 9112 does not allow fails the test."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close in order."""
        self.socket.close()

    def abort(self) -> None:
        """Close with a reset."""
        if isinstance(self.socket, ssl.SSLSocket):
            bare = socket.socket(fileno=self.socket.detach())
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            bare.close()
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def ask(self, method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1") -> Answer:
        """Send a whole request and read its answer."""
        self.send(request(method, path, *fields, body=body, version=version))
        return self.read(method)

    def receive(self, size: int = 65536) -> bytes:
        """What comes next; raises _End at the end."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        try:
            data = self.socket.recv(size)
        except ConnectionError:
            raise _End("reset") from None
        except ssl.SSLEOFError:
            raise _End("cut") from None
        if not data:
            raise _End("closed")
        return data

    def put_back(self, data: bytes) -> None:
        """Let what was received come next again."""
        self._buffer = data + self._buffer

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            assert len(self._buffer) < 1 << 20, "a line without end"
            held, self._buffer = self._buffer, b""
            self._buffer = held + self.receive()
        line, _, self._buffer = self._buffer.partition(b"\n")
        assert line.endswith(b"\r"), f"a bare LF ends {line!r}"
        return line[:-1]

    def _exactly(self, size: int, into: bytearray) -> None:
        wanted = len(into) + size
        while len(into) < wanted:
            into += self.receive(min(wanted - len(into), 1 << 18))

    def head(self) -> Answer:
        """The next head alone, interim or not."""
        start = self._line().decode("latin-1")
        found = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e]*)", start)
        assert found is not None, start
        answer = Answer(int(found[1]), found[2])
        answer.fields = self._fields()
        return answer

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while line := self._line().decode("latin-1"):
            found = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?(.*)", line)
            assert found is not None, line
            fields.append((found[1], found[2]))
        return fields

    def read(self, method: str = "GET") -> Answer:
        """The final answer to a request of this method, with the interim ones before it."""
        interim: list[Answer] = []
        while True:
            try:
                answer = self.head()
            except _End as end:
                return Answer(ended="nothing" if end.how == "closed" else end.how, interim=interim)
            if answer.status >= 200:
                answer.interim = interim
                break
            interim.append(answer)
        body = bytearray()
        try:
            self._read_body(answer, body, method)
            answer.ended = "complete"
        except _End as end:
            answer.ended = "cut" if end.how == "closed" else end.how
        answer.body = bytes(body)
        return answer

    def _read_body(self, answer: Answer, body: bytearray, method: str) -> None:
        coding, length = answer.get("transfer-encoding"), answer.get("content-length")
        if method == "HEAD" or answer.status in (204, 304):
            return
        if coding is not None:
            assert (coding, length) == ("chunked", None)
            self._read_chunks(answer, body)
        elif length is not None:
            self._exactly(int(length), body)
        else:
            try:
                while True:
                    body += self.receive()
            except _End as end:
                if end.how != "closed":
                    raise

    def _read_chunks(self, answer: Answer, body: bytearray) -> None:
        while True:
            line = self._line()
            assert re.fullmatch(rb"[0-9a-f]+", line), line
            size = int(line, 16)
            if not size:
                answer.trailers = self._fields()
                return
            self._exactly(size, body)
            assert self._line() == b""

    def rest(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        data = bytearray()
        with contextlib.suppress(_End):
            while True:
                data += self.receive()
        return bytes(data)

    def assert_closed(self) -> None:
        """The gateway closes the connection and says nothing more."""
        assert self.rest() == b""


def request(method: str, path: str, *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """A request's bytes."""
    lines = [f"{method} {path} HTTP/{version}", f"Host: {HOST}", *fields]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Request:
    """One request as a service got it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    raw: bytes

    def get(self, name: str) -> str | None:
        """A field's value, which must not stand twice."""
        values = [value for each, value in self.fields if each.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None


class Peer:
    """The gateway, as a service sees it on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def more(self) -> bytes:
        """What comes next; empty at the end, however the gateway ends."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        try:
            return self.socket.recv(1 << 18)
        except ConnectionError:
            return b""

    def head(self) -> Request | None:
        """The next request's head; None when the gateway has closed instead, or has asked for nothing for as long as
        any service waits."""
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                piece = self.more()
            except TimeoutError:
                assert not data, f"the head ends within {data!r}"
                return None
            if not piece:
                assert not data, data
                return None
            data += piece
        raw, _, self._buffer = data.partition(b"\r\n\r\n")
        start, *lines = raw.decode("latin-1").split("\r\n")
        method, target, version = start.split(" ")
        assert version == "HTTP/1.1"
        fields = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines)]
        return Request(method, target, fields, raw)

    def body(self, received: Request) -> bytes:
        """The whole body of a request."""
        return b"".join(self.pieces(received))

    def pieces(self, received: Request) -> Iterator[bytes]:
        """The body as it comes; ends early, with an empty piece, when the gateway goes away."""
        if received.get("transfer-encoding") is None:
            remaining = int(received.get("content-length") or 0)
            while remaining:
                piece = self.more()
                piece, self._buffer = piece[:remaining], piece[remaining:] + self._buffer
                remaining -= len(piece)
                yield piece
                if not piece:
                    return
            return
        while size := int(self._line(), 16):
            while size:
                piece = self.more()
                assert piece, "the body ends within a chunk"
                piece, self._buffer = piece[:size], piece[size:] + self._buffer
                size -= len(piece)
                yield piece
            assert self._line() == b""
        self.trailers = list(iter(self._line, b""))

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            held, self._buffer = self._buffer, b""
            piece = self.more()
            assert piece, f"the connection ends within a line: {held!r}"
            self._buffer = held + piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def finish(self) -> None:
        """No more comes from the service, which still reads, unless the gateway has gone already."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def until_gone(self) -> None:
        """Read and forget until the gateway closes."""
        while self.more():
            pass

    def serve(self, body: bytes = b"fresh") -> None:
        """Answer every further request properly, until the gateway closes."""
        while (received := self.head()) is not None:
            self.body(received)
            self.send(answer(received.target.encode() + b" " + body))


def answer(body: bytes = b"", *fields: str, status: str = "200 OK") -> bytes:
    """A proper answer's bytes."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Origin:
    """A service on a loopback port: every connection is played by `play(peer, number)` in a thread of its own.

    `number` counts connections from 0. A context manager: left, every connection is closed, and what a play
    found wrong is raised. With `listening` false connections are refused until `listen` is called.
    """

    def __init__(
        self, play: Callable[[Peer, int], object] = lambda peer, number: peer.serve(), *, listening: bool = True
    ) -> None:
        self.play = play
        self.accepted = 0
        self.faults: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        if listening:
            self.listen()

    def listen(self) -> None:
        """Accept connections from now on."""
        self.socket.listen(1024)
        self._spawn(self._accept)

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()
        if kind is None:
            for fault in self.faults:
                raise fault

    @property
    def open(self) -> int:
        """Connections that are being played."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._closing = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.socket.close()

    def hang_up(self) -> None:
        """End every connection, as a service does that is started anew."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                number, self.accepted = self.accepted, self.accepted + 1
                self._open.add(connection)
            self._spawn(self._run, connection, number)

    def _run(self, connection: socket.socket, number: int) -> None:
        try:
            self.play(Peer(connection), number)
        except ConnectionError:
            pass  # the gateway has gone, as it may at any time; what a client got is looked at on its side
        except BaseException as error:
            if not self._closing:
                self.faults.append(error)
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()


class Service:
    """A service that a test plays, and the gateway before it, which serves it at `path`."""

    def __init__(self, gateway: GatewayProcess, name: str, origin: Origin) -> None:
        self.gateway = gateway
        self.name = name
        self.path = f"/{name}"
        self.origin = origin

    def connect(self, **options: Any) -> Client:
        """A client of the gateway, as `GatewayProcess.connect` makes it."""
        return self.gateway.connect(**options)

    def connections(self, state: str) -> int:
        """The gateway's "idle" or "active" connections to this service."""
        name = f'koder_gateway_upstream_connections{{service="{self.name}",state="{state}"}}'
        return int(self.gateway.metrics()[name])


class Services:
    """One gateway for many tests, with a service for each that none has used before.

    Its ports are a plain one and one for TLS. A context manager, as the gateway's process is.
    """

    def __init__(
        self, folder: Path, count: int, sections: Mapping[str, Mapping[str, object]], *, reactor: str = ""
    ) -> None:
        self._spare = {f"s{number}": Origin(listening=False) for number in range(count)}
        config = configuration({name: origin.url for name, origin in self._spare.items()}, sections)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        self.gateway = GatewayProcess(folder, config, ports=ports, reactor=reactor)

    def take(self, play: Callable[[Peer, int], object], *, listening: bool = True) -> Service:
        """A service of one's own, whose origin the caller closes."""
        name, origin = self._spare.popitem()
        origin.play = play
        if listening:
            origin.listen()
        return Service(self.gateway, name, origin)

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *error: Any) -> None:
        for origin in self._spare.values():
            origin.close()
        self.gateway.__exit__(*error)


def kill_quietly(process: subprocess.Popen[bytes]) -> None:
    """End a helper process of a test at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
