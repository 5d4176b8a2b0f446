"""What the benchmarks drive: a whole exchange in memory, without sockets, TLS or a reactor's turn."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from koder_gateway.config import Settings
from koder_gateway.downstream.site import GatewaySite
from koder_gateway.http1.channel import Http1Channel
from koder_gateway.policy.clients import TrustedProxies
from koder_gateway.policy.cors import CorsPolicy
from koder_gateway.policy.decision import Policy
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.routing import Route, RouteTable
from koder_gateway.policy.tenants import Registry, Tenant, TenantPolicy
from koder_gateway.tree.bounds import client_limits, client_timeouts
from koder_gateway.tree.guards import guarded
from koder_gateway.tree.protocols import PROTOCOLS
from koder_gateway.tree.proxy import ProxyResource
from koder_gateway.tree.routes import Routes
from koder_gateway.upstream.pool import Service, ServiceTimeouts
from koder_gateway.upstream.tunnel import Tunnels
from koder_gateway.wire.clock import CoarseClock
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.response import ResponseReader

ORIGIN = b"https://app.example.com"
_FIELDS = (
    b"Host: acme.id.localhost\r\n"
    b"Origin: https://app.example.com\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0\r\n"
    b"Accept: application/json\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"Authorization: Bearer " + b"e" * 180 + b"\r\n"
)
REQUEST = b"GET /v1/users HTTP/1.1\r\n" + _FIELDS + b"\r\n"
NO_ROUTE = b"GET /nowhere HTTP/1.1\r\n" + _FIELDS + b"\r\n"
LIMITED = b"GET /v1/auth HTTP/1.1\r\n" + _FIELDS + b"\r\n"
PREFLIGHT = b"OPTIONS /v1/users HTTP/1.1\r\n" + _FIELDS + b"Access-Control-Request-Method: POST\r\n\r\n"
MISDIRECTED = REQUEST.replace(b"acme.id.localhost", b"somewhere.else.example")
BAD_PATH = b"GET /v1/users/../admin HTTP/1.1\r\n" + _FIELDS + b"\r\n"
ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 18:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 66\r\nConnection: keep-alive\r\n\r\n"
)
ANSWER = ANSWER_HEAD + b"x" * 66


class Wire:
    """A transport that keeps the last write."""

    disconnecting = False

    def __init__(self) -> None:
        self.last = b""

    def write(self, data: bytes) -> None:
        self.last = data

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 40000)

    getHost = getPeer

    def loseConnection(self) -> None:
        pass

    abortConnection = pauseProducing = resumeProducing = unregisterProducer = loseConnection

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass


class Endpoint:
    """Connects at once, to a wire."""

    def __init__(self) -> None:
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(Wire())
        return succeed(self.protocol)


def policy(tenants: int = 10, routes: int = 5, entries: int = 0) -> Policy:
    """A policy like the benchmark's: one wide limit, one tight one."""
    registry = Registry([Tenant("acme"), *(Tenant(f"t{number}") for number in range(tenants - 1))])
    rules = [
        LimitRule("open", ("tenant", "ip"), 1_000_000, 1),
        LimitRule("tight", ("tenant", "ip"), 1, 3600, 1, paths=(b"/v1/auth",)),
    ]
    limiter = Limiter(rules, max(262_144, entries * 2))
    for number in range(entries):
        limiter.admit(b"acme", b"%d" % number, b"GET", b"/v1/users", 0.0)
    paths = [b"/v1/users", b"/v1/auth", *(b"/v1/service%d" % number for number in range(routes - 2))]
    return Policy(
        registry=registry,
        tenants=TenantPolicy("id.localhost", "X-Tenant-ID", "", registry),
        tenant_header=b"X-Tenant-ID",
        cors=CorsPolicy(["https://app.example.com"]),
        limiter=limiter,
        routes=RouteTable([Route(path, "identity") for path in paths]),
        proxies=TrustedProxies(()),
        max_body=1 << 20,
    )


class Rig:
    """One client connection before one service connection."""

    def __init__(self, decisions: Policy | None = None) -> None:
        decisions = decisions or policy()
        self.endpoint = Endpoint()
        clock = CoarseClock()
        reader = ResponseReader(b"X-Tenant-ID")
        settings = Settings()
        service = Service(
            "identity",
            [("memory", self.endpoint)],  # type: ignore[list-item]
            reader,
            clock,
            later=lambda call: None,
            timeouts=ServiceTimeouts(60.0, 60.0, 60.0),
            max_connections=1024,
            tunnels=Tunnels(clock),
        )
        leaf = ProxyResource(service)
        paths = (b"/v1/users", b"/v1/auth")
        tree = guarded(Routes(dict.fromkeys(paths, leaf)))
        self.ended = 0
        self.site = GatewaySite(
            tree,
            decisions,
            RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=100),
            PROTOCOLS,
            reactor=Clock(),
            clock=clock,
            finished=self._count,
            timeouts=client_timeouts(settings),
            limits=client_limits(settings),
        )
        self.channel = Http1Channel(self.site)
        self.wire = Wire()
        self.channel.makeConnection(self.wire)  # type: ignore[arg-type]

    def _count(self, exchange: object) -> None:
        self.ended += 1

    def exchange(self, request: bytes = REQUEST, answer: bytes = ANSWER) -> bytes:
        """A request through to the service and its answer back; what the client got."""
        self.channel.dataReceived(request)
        self.endpoint.protocol.dataReceived(answer)
        return self.wire.last

    def refused(self, request: bytes) -> bytes:
        """A request that the gateway answers itself."""
        self.channel.dataReceived(request)
        return self.wire.last
