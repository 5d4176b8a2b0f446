"""What is measured of the gateway and its peers: the rows of the table in docs/performance.md."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from echo import HOST
from load import Sample, idle_connections
from peer_load import Ask, latency, saturate, streams
from peer_servers import BULK, TIGHT, USERS, Bench, Kind, Peer
from servers import LARGE, LARGE_PATH, ORIGIN, MeasurementError

# A request to see whether a server does what the others do, and how long it may take, in seconds.
_PATIENCE: Final = 10
# Idle connections whose memory is measured.
IDLE: Final = 400
# Of large bodies few at a time fill a core.
_FEW: Final = 8
_PREFLIGHT: Final = Ask(USERS, "OPTIONS", fields=(("Access-Control-Request-Method", "POST"),))
_LIMITED: Final = Ask(TIGHT, refused=True)
_DOWNLOAD: Final = Ask(LARGE_PATH, connections=_FEW)
_UPLOAD: Final = Ask(BULK, "POST", body=LARGE, connections=_FEW)

# What a server makes of so many seconds; rows with the same one are measured once.
Measure = Callable[[Bench, Peer, int], Sample]


@dataclass(frozen=True)
class Case:
    """A row, which shows `figure` of what was measured. `more` says whether more is better; `after` that it is
    measured once, when all else is over; `tool` and `package` what it can't do without."""

    name: str
    unit: str
    figure: str
    measure: Measure
    more: bool = True
    after: bool = False
    tool: str = ""
    package: str = ""

    def missing(self) -> str | None:
        """Why it can't be measured, in one line; None when it can."""
        if not self.tool or shutil.which(self.tool):
            return None
        return f"{self.name} is left out: {self.tool} is not installed; apt-get install {self.package}"

    def of(self, kind: Kind) -> bool:
        """Whether such a peer has it at all."""
        return kind.limits or self.name != "limited"

    def ratio(self, ours: float, theirs: float) -> float:
        """Above 1, the gateway is ahead."""
        return ours / theirs if self.more else theirs / ours


def _throughput(ask: Ask, size: int, bench: Bench, peer: Peer, seconds: int) -> Sample:
    sample = saturate(peer, bench.cores, ask, seconds)
    return {**sample, "megabytes": sample["rate"] * size / 1e6}


def _streams(bench: Bench, peer: Peer, seconds: int) -> Sample:
    return streams(peer, bench.cores, Ask(USERS), seconds)


def _latency(bench: Bench, peer: Peer, seconds: int) -> Sample:
    return latency(peer, bench.cores, Ask(USERS), seconds)


def _idle(bench: Bench, peer: Peer, seconds: int) -> Sample:
    """KiB of a connection, of a server that has just been started and has had a few."""
    fresh = bench.start(peer.kind)
    with fresh:
        for client in idle_connections(fresh, 16):
            client.close()
        before = fresh.memory
        clients = idle_connections(fresh, IDLE)
        grown = fresh.memory - before
        for client in clients:
            client.close()
    return {"kib": grown / IDLE / 1024}


def _memory(bench: Bench, peer: Peer, seconds: int) -> Sample:
    return {"mib": peer.memory / (1 << 20)}


def _rate(name: str, unit: str, ask: Ask) -> Case:
    return Case(name, unit, "rate", partial(_throughput, ask, 0))


def _bulk(name: str, ask: Ask) -> Case:
    return Case(name, "MB/s", "megabytes", partial(_throughput, ask, LARGE))


CASES: Final = (
    _rate("tls", "req/s", Ask(USERS)),
    _rate("plain", "req/s", Ask(USERS, secure=False)),
    _rate("handshake", "conn/s", Ask(USERS, close=True)),
    _rate("preflight", "req/s", _PREFLIGHT),
    _rate("limited", "req/s", _LIMITED),
    _bulk("download", _DOWNLOAD),
    _bulk("upload", _UPLOAD),
    Case("p50", "ms", "p50", _latency, more=False),
    Case("p99", "ms", "p99", _latency, more=False),
    Case("h2", "req/s", "rate", _streams, tool="h2load", package="nghttp2-client"),
    Case("idle", "KiB/conn", "kib", _idle, more=False),
    Case("rss", "MiB", "mib", _memory, more=False, after=True),
)


def check(peer: Peer) -> None:
    """Ask once for all that is measured; MeasurementError when a server does something else than the others."""
    kind = peer.kind.name
    for secure in (False, True):
        head, body = _ask(peer, Ask(USERS, secure=secure))
        _expect(kind, head.startswith(b"HTTP/1.1 200 ") and b'"tenant":"acme"' in body, "serves", head)
        _expect(kind, b"access-control-allow-origin: " + ORIGIN.encode() in head.lower(), "names the origin", head)
    head, body = _ask(peer, _PREFLIGHT)
    # Traefik's is 200.
    answered = head.startswith((b"HTTP/1.1 204 ", b"HTTP/1.1 200 ")) and not body
    _expect(kind, answered and b"access-control-allow-methods" in head.lower(), "answers a preflight", head)
    head, body = _ask(peer, _DOWNLOAD)
    _expect(kind, len(body) == LARGE, f"gives {LARGE} bytes", head)
    head, body = _ask(peer, _UPLOAD)
    _expect(kind, head.startswith(b"HTTP/1.1 200 "), "takes a large body", head)
    if peer.kind.limits:
        statuses = {_ask(peer, _LIMITED)[0][9:12] for _ in range(4)}
        _expect(kind, b"429" in statuses, "limits", b" ".join(statuses))
    with _connected(peer, "h2") as client:
        _expect(kind, client.selected_alpn_protocol() == "h2", "speaks HTTP/2", b"")
        _expect(kind, client.version() == "TLSv1.3", "speaks TLS 1.3", b"")


def _expect(kind: str, condition: object, what: str, told: bytes) -> None:
    if not condition:
        raise MeasurementError(f"{kind} should, but does not: {what}\n{told.decode('latin-1')}")


def _connected(peer: Peer, protocol: str = "http/1.1") -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    raw = socket.create_connection(("127.0.0.1", peer.tls_port), _PATIENCE)
    return context.wrap_socket(raw, server_hostname=HOST)


def _ask(peer: Peer, ask: Ask) -> tuple[bytes, bytes]:
    """The head and the body of the one answer on a connection that ends with it."""
    last = Ask(ask.path, ask.method, ask.body, ask.fields, ask.secure, close=True)
    with (
        _connected(peer) if ask.secure else socket.create_connection(("127.0.0.1", peer.plain_port), _PATIENCE) as end
    ):
        end.sendall(last.raw())
        received = bytearray()
        while data := end.recv(1 << 18):
            received += data
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return head, body
