"""WebSocket messages a second through the gateway over TLS, beside Go's reverse proxy on the same core.

    python benchmarks/echo.py [--seconds N] [--rounds N] [--starts N] [--connections N] [--size BYTES] [--go PATH]

Each connection has one message on its way at a time. Clients and the echoing service are this one process, on the
other processors, with frames that were made beforehand, so that it costs little. Without Go the gateway is measured
alone. Beside messages a second there is the processor time that each message costs the server, which a load generator
that is too slow does not distort; well below 100 % busy, the first figure is the load's.

Rounds are short and alternate the servers, a ratio is the median of those taken round by round, and all are started
anew now and then: where a process happens to lie in memory is worth some hundredths.
"""

from __future__ import annotations

import argparse
import datetime
import os
import select
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha1
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from servers import BASE_DOMAIN, Cores, Gateway, MeasurementError, Server, free_port

HOST = f"acme.{BASE_DOMAIN}"
KEY = b64encode(bytes(range(16)))
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MASK = b"\x01\x02\x03\x04"
_REQUEST = (
    b"GET /v1/users HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (HOST.encode(), KEY)
)
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % b64encode(sha1(KEY + _GUID, usedforsecurity=False).digest())
)


def frames(size: int) -> tuple[bytes, bytes]:
    """A binary message of so many bytes as a client sends it, masked, and as it comes back (RFC 6455 section 5.2)."""
    payload = bytes(number % 251 for number in range(size))
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    masked = bytes(byte ^ _MASK[place % 4] for place, byte in enumerate(payload))
    return b"\x82" + bytes([length[0] | 0x80]) + length[1:] + _MASK + masked, b"\x82" + length + payload


class Load:
    """The clients and the service, in one loop."""

    def __init__(self, size: int) -> None:
        self._asks, self._answers = frames(size)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]

    def close(self) -> None:
        """Stop being a service."""
        self._listener.close()

    @contextmanager
    def _pairs(self, port: int, count: int) -> Iterator[tuple[list[ssl.SSLSocket], list[socket.socket]]]:
        """Clients of the proxy on this port, and their connections at the service, after the handshake."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with ExitStack() as stack:
            clients, services = [], []
            for _ in range(count):
                plain = socket.create_connection(("127.0.0.1", port), 10)
                client = stack.enter_context(context.wrap_socket(plain, server_hostname=HOST))
                client.sendall(_REQUEST)
                service = stack.enter_context(self._listener.accept()[0])
                if b"Upgrade: websocket" not in service.recv(65536):
                    raise MeasurementError("the proxy does not pass the upgrade on")
                service.sendall(_ANSWER)
                if not client.recv(65536).startswith(b"HTTP/1.1 101 "):
                    raise MeasurementError("the proxy does not pass the switch on")
                for each in (client, service):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    each.setblocking(False)
                clients.append(client)
                services.append(service)
            yield clients, services

    def run(self, server: Server, port: int, connections: int, seconds: float) -> tuple[int, float]:
        """How many messages went to the service and back, and what of its processor the server took for them."""
        with self._pairs(port, connections) as (clients, services):
            poller = select.epoll()
            ends: dict[int, tuple[socket.socket, bytes, bytes]] = {}
            for client, service in zip(clients, services, strict=True):
                ends[client.fileno()] = (client, self._answers, self._asks)
                ends[service.fileno()] = (service, self._asks, self._answers)
            for number in ends:
                poller.register(number, select.EPOLLIN)
            for client in clients:
                client.send(self._asks)
            used = server.cpu_seconds
            try:
                count = self._echo(poller, ends, time.perf_counter() + seconds)
            finally:
                poller.close()
            return count // 2, server.cpu_seconds - used

    @staticmethod
    def _echo(poller: select.epoll, ends: dict[int, tuple[socket.socket, bytes, bytes]], until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            for number, _ in poller.poll(1):
                end, expected, reply = ends[number]
                try:
                    data = end.recv(65536)
                except ssl.SSLWantReadError:
                    continue  # a session ticket
                if data != expected:
                    raise MeasurementError(f"{data!r} came back")
                end.send(reply)
                count += 1
        return count


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the proxy beside, and its key: the same kind that the gateway makes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = time.time()
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(_moment(now - 3600)).not_valid_after(_moment(now + 86400))
    names = x509.SubjectAlternativeName([x509.DNSName(f"*.{BASE_DOMAIN}")])
    certificate = builder.add_extension(names, False).sign(key, hashes.SHA256())
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def start_go(folder: Path, go: str, cores: Cores, service: int) -> tuple[Server, int]:
    """Go's reverse proxy, built here, and its port."""
    folder.mkdir()
    binary = folder / "reverse_proxy"
    source = Path(__file__).with_name("reverse_proxy.go")
    environment = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOPROXY": "off"}
    built = subprocess.run([go, "build", "-o", str(binary), str(source)], env=environment, capture_output=True)
    if built.returncode:
        raise MeasurementError(f"{go} does not build {source.name}: {built.stderr.decode(errors='replace')}")
    port = free_port()
    certificate, key = write_certificate(folder)
    words = [str(binary), f"127.0.0.1:{port}", str(certificate), str(key), f"http://127.0.0.1:{service}"]
    server = Server(folder, ["env", "GOMAXPROCS=1", *words], cores.server)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return server, port
        time.sleep(0.05)
    raise MeasurementError("Go's reverse proxy does not serve")


def measure(load: Load, server: Server, port: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Messages a second, microseconds of the server's processor for each, and how busy it was."""
    load.run(server, port, options.connections, 0.3)
    count, used = load.run(server, port, options.connections, options.seconds)
    return count / options.seconds, used / count * 1e6, used / options.seconds


Row = tuple[float, float, float]


def rounds(options: argparse.Namespace, cores: Cores) -> Iterator[tuple[str, Row]]:
    """Start every server and measure each in turn, round after round."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        load = Load(options.size)
        stack.callback(load.close)
        gateway = stack.enter_context(Gateway(folder / "gateway", cores, load.port, routes=("/v1/users",)))
        gateway.wait_until_ready()
        servers: dict[str, tuple[Server, int]] = {"koder-gateway": (gateway, gateway.tls_port)}
        if options.go:
            server, port = start_go(folder / "go", options.go, cores, load.port)
            servers["go"] = stack.enter_context(server), port
        for _ in range(options.rounds):
            for name, (server, port) in servers.items():
                yield name, measure(load, server, port, options)


def compare(options: argparse.Namespace, cores: Cores) -> None:
    """Measure, and print what came out."""
    rows: dict[str, list[Row]] = {}
    for _ in range(options.starts):
        for name, row in rounds(options, cores):
            rows.setdefault(name, []).append(row)
    count = options.starts * options.rounds
    print(f"{options.connections} connections, {options.size} bytes, TLS, median of {count} rounds")
    for name, row in rows.items():
        rate, cost, busy = (statistics.median(column) for column in zip(*row, strict=True))
        print(f"{name:14} {rate:9,.0f} messages/s {cost:7.1f} us each {busy:5.0%} busy")
    if options.go:
        pairs = list(zip(rows["koder-gateway"], rows["go"], strict=True))
        rate = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
        cost = statistics.median(theirs[1] / ours[1] for ours, theirs in pairs)
        print(f"beside Go: {rate:.2f} by messages/s, {cost:.2f} by processor time")


def main() -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.7, help="of a round")
    parser.add_argument("--rounds", type=int, default=5, help="before all are started anew")
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, choices=range(1, 65536), metavar="BYTES")
    parser.add_argument("--go", default=shutil.which("go"), metavar="PATH", help="Go's compiler")
    options = parser.parse_args()
    try:
        cores = Cores()
        os.sched_setaffinity(0, {int(core) for core in cores.load.split(",")})
        compare(options, cores)
    except MeasurementError as error:
        print(f"echo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
