"""The tree as a play: guards, routes, the leaf, resources of others in it, and all of it in a stock site."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.util import DeferredResource
from zope.interface.verify import verifyObject

from koder_gateway.downstream.refusal_resource import RefusalResource
from koder_gateway.errors import NO_ROUTE, TENANT_REQUIRED, UNKNOWN_TENANT, Refusal
from koder_gateway.exchange.states import Exchange
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.routing import Route
from koder_gateway.policy.tenants import Tenant
from koder_gateway.tree.guards import AccessGuard, Guard, RateGuard, TenantGuard
from koder_gateway.tree.proxy import ProxyResource
from koder_gateway.tree.routes import Routes
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.conftest import LoggedErrors
from tests.kit.http1 import Message, read_message, read_messages
from tests.kit.memory import HOST, MemoryGateway, Peer, forwarded, join, request, serve, settings_with

with warnings.catch_warnings():
    # Twisted's own module makes what Twisted has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.static import Data, File

Make = Callable[..., MemoryGateway]
# Twisted's own error pages are what Twisted has deprecated.
TWISTEDS_OWN = pytest.mark.filterwarnings("ignore:twisted.web.resource._Unsafe:DeprecationWarning")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
ORIGIN = b"https://app.example.com"
TENANTS = (
    Tenant("koder", domains=("login.koder.example",), cors_origins=("https://koder.example",)),
    Tenant("closed", status="suspended"),
)


def problem(data: bytes) -> tuple[int, str]:
    """The status and code of the only answer in `data`, which must be a problem in every respect (RFC 9457)."""
    (message,) = read_messages(data)
    assert message.one(b"content-type") == b"application/problem+json"
    document = json.loads(message.body)
    assert document["type"] == f"https://docs.koder.dev/gateway/errors/{document['code']}"
    assert document["status"] == message.status
    assert document["request_id"] == message.one(b"x-request-id").decode()
    assert document["title"]
    assert document["detail"]
    return message.status, document["code"]


# -- guards


def test_every_part_of_the_tree_is_a_resource(gateway: MemoryGateway) -> None:
    tree: Any = gateway.composition.resource
    parts = [
        tree,
        tree.inner,
        tree.inner.inner,
        tree.inner.inner.inner,
        RefusalResource(NO_ROUTE),
        ProxyResource(gateway.services["identity"]),
    ]
    assert [type(part) for part in parts[:4]] == [TenantGuard, AccessGuard, RateGuard, Routes]
    for part in parts:
        assert verifyObject(IResource, part)
        with pytest.raises(TypeError):
            part.putChild(b"x", Resource())


@pytest.mark.parametrize(
    ("host", "lines", "expected"),
    [
        (b"nobody.id.koder.dev", (), (404, "unknown_tenant")),
        (b"closed.id.koder.dev", (), (403, "tenant_suspended")),
        (b"id.koder.dev", (), (400, "tenant_required")),
        (b"id.koder.dev", (b"X-Tenant-ID: nobody",), (404, "unknown_tenant")),
        (HOST, (b"X-Tenant-ID: closed",), (400, "tenant_conflict")),
        (b"evil.example", (), (421, "misdirected_request")),
    ],
)
@pytest.mark.parametrize("target", [b"/v1/users", b"/nowhere", b"/"])
def test_the_tenant_comes_before_the_route(
    host: bytes, lines: tuple[bytes, ...], target: bytes, expected: tuple[int, str], make_gateway: Make
) -> None:
    gateway = make_gateway(tenants=TENANTS)
    client = gateway.connect()
    client.send(request(b"GET", target, *lines, host=host))
    assert problem(client.take()) == expected
    assert client.closed == ""
    assert not gateway.origin().connections
    (exchange,) = gateway.exchanges
    # A suspended tenant's refusals are its own in the log.
    named = b"closed" if expected[1] == "tenant_suspended" else b""
    assert (exchange.code, exchange.tenant, exchange.route) == (expected[1], named, b"")


@pytest.mark.parametrize(
    ("host", "lines"),
    [
        (HOST, ()),
        (b"login.koder.example", ()),
        (b"LOGIN.koder.example.:443", ()),
        (b"id.koder.dev", (b"X-Tenant-ID: koder",)),
        (HOST, (b"x-tenant-id: koder",)),
    ],
)
def test_a_service_is_told_of_the_tenant_and_the_host(
    host: bytes, lines: tuple[bytes, ...], make_gateway: Make
) -> None:
    gateway = make_gateway(tenants=TENANTS)
    client = gateway.connect()
    client.send(request(b"GET", b"/v1/users", *lines, host=host))
    assert gateway.origin().only.received == forwarded(host=host)
    client.close()
    (exchange,) = gateway.exchanges
    assert (exchange.tenant, exchange.route, exchange.service) == (b"koder", b"/v1/users", "identity")


def limited(**options: Any) -> dict[str, Any]:
    rule = LimitRule("few", ("tenant", "ip"), 2, 60, **options)
    return {"settings": settings_with(limits=(rule,))}


def test_a_limit_is_charged_once_a_request(make_gateway: Make) -> None:
    gateway = make_gateway(**limited())
    client = gateway.connect()
    for target, left in ((b"/v1/users", 1), (b"/v1/users/a/b/c", 0)):
        client.send(request(b"GET", target))
        serve(gateway, lambda _: OK)
        (message,) = read_messages(client.take())
        assert message.one(b"ratelimit-policy") == b'"few";q=2;w=60'
        assert message.one(b"ratelimit").startswith(b'"few";r=%d;t=' % left)
        assert not message.values(b"retry-after")
    client.send(request())
    (message,) = read_messages(client.received)
    assert problem(client.take()) == (429, "rate_limited")
    assert message.one(b"retry-after") == b"30"
    gateway.advance(30)
    client.send(request())
    serve(gateway, lambda _: OK)
    assert read_messages(client.take())[0].status == 200
    other = gateway.connect("192.0.2.2")
    other.send(request(b"GET", b"/nowhere"))
    assert problem(other.take()) == (404, "no_route")


def test_a_limit_of_failures_is_charged_by_the_answer(make_gateway: Make) -> None:
    gateway = make_gateway(**limited(charge="failures"))
    client = gateway.connect()
    statuses = []
    for status in (200, 401, 200, 403, 200):
        client.send(request())
        serve(gateway, lambda _: b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)  # noqa: B023
        statuses.append(read_messages(client.take())[0].status)
    assert statuses == [200, 401, 200, 403, 429]


def test_a_shadow_limit_refuses_nothing(make_gateway: Make) -> None:
    gateway = make_gateway(**limited(mode="shadow"))
    client = gateway.connect()
    for _ in range(4):
        client.send(request(b"GET", b"/nowhere"))
        (message,) = read_messages(client.take())
        assert message.status == 404
        assert not message.values(b"ratelimit")
    assert gateway.composition.policy.limiter.meters[0].shadowed == 2


def test_a_services_own_rate_fields_pass_only_where_the_gateway_has_none(make_gateway: Make) -> None:
    answer = b'HTTP/1.1 200 OK\r\nRateLimit: "theirs";r=1\r\nContent-Length: 0\r\n\r\n'
    for options, expected in ((limited(), b'"few"'), ({}, b'"theirs"')):
        gateway = make_gateway(**options)
        client = gateway.connect()
        client.send(request())
        serve(gateway, lambda _: answer)
        (message,) = read_messages(client.take())
        assert message.one(b"ratelimit").startswith(expected)


def test_a_refused_tenant_is_charged_nothing(make_gateway: Make) -> None:
    gateway = make_gateway(**limited(), tenants=TENANTS)
    client = gateway.connect()
    for _ in range(3):
        client.send(request(host=b"closed.id.koder.dev"))
        assert problem(client.take()) == (403, "tenant_suspended")
    assert gateway.composition.policy.limiter.entries == 0


class Door(Guard):
    """Counts who comes by; lets pass until it is shut."""

    shut = False

    def __init__(self, inner: object) -> None:
        super().__init__(inner)
        self.asked = 0

    def admit(self, exchange: Exchange) -> Refusal | None:
        self.asked += 1
        return TENANT_REQUIRED if self.shut else None


@pytest.mark.parametrize("target", [b"/v1/door", b"/v1/door/", b"/v1/door/a/b"])
@pytest.mark.parametrize("shut", [False, True])
def test_a_guard_is_asked_once_wherever_it_is_met(target: bytes, shut: bool, make_gateway: Make) -> None:
    path = Path()
    door = Door(path)
    door.shut = shut
    gateway = make_gateway(mounts={b"/v1/door": door})
    client = gateway.connect()
    client.send(request(b"GET", target))
    (message,) = read_messages(client.received)
    assert message.status == (400 if shut else 200)
    assert door.asked == 1
    if not shut:
        below = target.removeprefix(b"/v1/door").removeprefix(b"/")
        assert path.seen[-1][1] == ([b""] if target.endswith(b"/") else below.split(b"/") if below else [])


def test_a_guard_that_decides_nothing_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="Guard"):
        Guard(None).admit(None)


# -- routes


@pytest.mark.parametrize(
    ("target", "service"),
    [
        (b"/v1/users", "identity"),
        (b"/v1/users/", "identity"),
        (b"/v1/users/7?x=/v1/admin", "identity"),
        (b"/v1/users//7", "identity"),
        (b"/v1/users/%2541", "identity"),
        (b"/v1/users;v=1/x", None),
        (b"/v1/users2", None),
        (b"/v1/user", None),
        (b"/V1/users", None),
        (b"//v1/users", None),
        (b"/v1//users", None),
        (b"/v1/%75sers", "identity"),
        (b"/", None),
        (b"/v1", None),
        (b"/oauth/v2/token", "oauth2"),
        (b"/.well-known/openid-configuration", "oauth2"),
        (b"/v1/sessions/1", "session"),
    ],
)
def test_routing_is_by_whole_raw_segments(target: bytes, service: str | None, gateway: MemoryGateway) -> None:
    client = gateway.connect()
    client.send(request(b"GET", target))
    if service is None:
        assert problem(client.take()) == (404, "no_route")
        assert all(not gateway.origin(name).connections for name in gateway.services)
    else:
        assert gateway.origin(service).only.received == forwarded(b"GET", target)


def test_the_longest_route_wins(make_gateway: Make) -> None:
    gateway = make_gateway(
        settings=settings_with(
            routes=(Route(b"/v1", "identity"), Route(b"/v1/users/keys", "admin"), Route(b"/v1/users", "auth"))
        )
    )
    for target, service in ((b"/v1/x", "identity"), (b"/v1/users/7", "auth"), (b"/v1/users/keys/7", "admin")):
        gateway.connect().send(request(b"GET", target))
        assert gateway.origin(service).only.received == forwarded(b"GET", target)


def test_a_root_route_takes_the_rest(make_gateway: Make) -> None:
    gateway = make_gateway(settings=settings_with(routes=(Route(b"/", "identity"), Route(b"/v1/users", "auth"))))
    for target in (b"/", b"/anything/at/all", b"//x"):
        gateway.connect().send(request(b"GET", target))
        assert gateway.origin("identity").last.received == forwarded(b"GET", target)
    assert not gateway.origin("auth").connections


def test_routes_have_a_leaf_for_each_path() -> None:
    leaf = Data(b"x", "text/plain")
    routes = Routes({b"/a": leaf})
    assert verifyObject(IResource, routes)


# -- the leaf


def test_the_leaf_is_what_is_below_it(gateway: MemoryGateway) -> None:
    leaf = ProxyResource(gateway.services["identity"])
    assert leaf.isLeaf
    assert leaf.getChildWithDefault(b"x", None) is leaf
    refused = RefusalResource(UNKNOWN_TENANT)
    assert refused.getChildWithDefault(b"x", None) is refused


# -- resources of others in our tree


class Path(Resource):
    """A leaf that says where it is and what it was sent."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[bytes], list[bytes]]] = []

    def render(self, request: Any) -> bytes:
        self.seen.append((list(request.prepath), list(request.postpath)))
        request.setHeader(b"Content-Type", b"text/plain")
        return b"|".join((request.method, request.uri, b"/".join(request.prepath), b"/".join(request.postpath)))


class Body(Resource):
    """Wants the body whole, and answers with it."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        body: bytes = request.content.read()
        return b"%d:%b" % (len(body), body[:10])


class Names(Resource):
    """Makes its children when they are asked for, by what the request says."""

    def getChild(self, path: bytes, request: Any) -> Resource:
        said = request.args.get(b"say", [b""])[0]
        secret = request.getHeader(b"X-Secret") or b""
        return Data(b"%b,%b,%b,%b" % (path, said, secret, request.getCookie(b"c") or b""), "text/plain")


def ask(gateway: MemoryGateway, *arguments: bytes, **more: bytes) -> Message:
    """One request, whose answer must be complete."""
    client = gateway.connect()
    client.send(request(*arguments, **more))
    (message,) = read_messages(client.received, [arguments[0]])
    assert message.one(b"x-request-id") == b"r1"
    assert len(message.values(b"date")) == 1
    return message


@pytest.mark.parametrize(
    ("mount", "target", "prepath", "postpath"),
    [
        (b"/hook", b"/hook", [b"hook"], []),
        (b"/hook", b"/hook/", [b"hook"], [b""]),
        (b"/hook", b"/hook/a%20b/c", [b"hook"], [b"a b", b"c"]),
        (b"/v1/hook", b"/v1/hook", [b"v1", b"hook"], []),
        (b"/v1/hook", b"/v1/hook/a/b", [b"v1", b"hook"], [b"a", b"b"]),
    ],
)
def test_a_mounted_leaf_is_told_where_it_is(
    mount: bytes, target: bytes, prepath: list[bytes], postpath: list[bytes], make_gateway: Make
) -> None:
    path = Path()
    message = ask(make_gateway(mounts={mount: path}), b"GET", target)
    assert message.status == 200
    assert path.seen == [(prepath, postpath)]


@TWISTEDS_OWN
@pytest.mark.parametrize("mount", [b"/", b"/site", b"/v1/site"])
def test_a_mounted_branch_finds_its_children(mount: bytes, make_gateway: Make) -> None:
    root = Resource()
    root.putChild(b"", Data(b"index", "text/plain"))
    root.putChild(b"a", Data(b"child", "text/plain"))
    gateway = make_gateway(mounts={mount: root})
    prefix = mount.rstrip(b"/")
    assert ask(gateway, b"GET", prefix + b"/").body == b"index"
    assert ask(gateway, b"GET", prefix + b"/a").body == b"child"
    assert ask(gateway, b"GET", prefix + b"/b").status == 404


def test_a_mounted_branch_sees_the_request_while_it_looks_for_a_child(make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/names": Names()})
    message = ask(gateway, b"GET", b"/names/x?say=hello", b"X-Secret: s", b"Cookie: c=1")
    assert message.body == b"x,hello,s,1"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 100000])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_resource_that_wants_the_body_gets_it_whole(
    framing: str, size: int, at_once: bool, make_gateway: Make
) -> None:
    gateway = make_gateway(mounts={b"/body": Body()})
    client = gateway.connect()
    body = b"x" * size
    if framing == "length":
        head = request(b"POST", b"/body", b"Content-Length: %d" % size)
    else:
        head = request(b"POST", b"/body", b"Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if size else b"0\r\n\r\n"
    if at_once:
        client.send(head + body)
    else:
        client.send(head)
        client.send_in(body[at : at + 1000] for at in range(0, len(body), 1000))
    (message,) = read_messages(client.take())
    assert message.body == b"%d:%b" % (size, b"x" * min(size, 10))
    client.send(request(b"GET", b"/nowhere"))
    assert problem(client.take()) == (404, "no_route")
    assert gateway.exchanges[0].bytes_in == size


def test_a_body_over_the_limit_never_reaches_a_resource(make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/body": Body()}, settings=settings_with(requests={"max_body": 10}))
    client = gateway.connect()
    client.send(request(b"POST", b"/body", b"Transfer-Encoding: chunked"))
    client.send(b"6\r\nabcdef\r\n").send(b"6\r\nabcdef\r\n")
    assert problem(client.received) == (413, "body_too_large")
    assert client.half_closed


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
def test_a_client_that_goes_in_its_body_ends_a_resources_exchange(
    end: Callable[[Peer], None], make_gateway: Make
) -> None:
    gateway = make_gateway(mounts={b"/body": Body()})
    client = gateway.connect()
    client.send(request(b"POST", b"/body", b"Content-Length: 10", body=b"abc"))
    end(client)
    (exchange,) = gateway.exchanges
    assert exchange.code == "client_gone"


def test_a_resources_late_body_is_408(make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/body": Body()})
    client = gateway.connect()
    client.send(request(b"POST", b"/body", b"Content-Length: 10", body=b"abc"))
    gateway.advance(30.5)
    assert problem(client.received) == (408, "request_timeout")


def test_a_resource_is_behind_tenants_limits_and_cors(make_gateway: Make) -> None:
    settings = settings_with(limits=(LimitRule("few", ("ip",), 1, 60),), cors={"origins": (ORIGIN.decode(),)})
    gateway = make_gateway(mounts={b"/path": Path()}, settings=settings, tenants=TENANTS)
    refused = ask(gateway, b"GET", b"/path", b"Origin: " + ORIGIN, host=b"closed.id.koder.dev")
    served = ask(gateway, b"GET", b"/path", b"Origin: " + ORIGIN)
    limited = ask(gateway, b"GET", b"/path", b"Origin: " + ORIGIN)
    assert [message.status for message in (refused, served, limited)] == [403, 200, 429]
    for message in (refused, served, limited):
        assert message.one(b"access-control-allow-origin") == ORIGIN
        assert message.one(b"vary") == b"Origin"
    assert served.one(b"ratelimit").startswith(b'"few";r=0')


def test_a_resource_cannot_speak_for_the_gateway(make_gateway: Make) -> None:
    class Boastful(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            for name in (b"Connection", b"Date", b"X-Request-ID", b"Access-Control-Allow-Origin", b"Keep-Alive"):
                request.setHeader(name, b"mine")
            return b"x"

    message = ask(make_gateway(mounts={b"/boast": Boastful()}), b"GET", b"/boast")
    assert b"mine" not in [value for _, value in message.fields]


def test_a_resource_that_writes_by_and_by_is_chunked(make_gateway: Make) -> None:
    class Slow(Resource):
        isLeaf = True
        begun: Any = None

        def render_GET(self, request: Any) -> int:
            self.begun = request
            request.write(b"one")
            return NOT_DONE_YET

    slow = Slow()
    gateway = make_gateway(mounts={b"/slow": slow})
    client = gateway.connect()
    client.send(request(b"GET", b"/slow") + request(b"GET", b"/nowhere"))
    slow.begun.write(b"two")
    assert b"no_route" not in client.received
    slow.begun.finish()
    first, second = read_messages(client.take())
    assert (first.status, first.body, second.status) == (200, b"onetwo", 404)
    assert client.closed == ""
    old = gateway.connect()
    old.send(request(b"GET", b"/slow", version=b"1.0"))
    slow.begun.finish()
    assert old.received.endswith(b"Connection: close\r\n\r\none")
    assert old.closed == "clean"
    assert [exchange.bytes_out for exchange in gateway.exchanges[::2]] == [6, 3]


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_resource_answers_head_without_a_body(method: bytes, make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/data": Data(b"hello", "text/plain")})
    client = gateway.connect()
    client.send(request(method, b"/data"))
    message, rest = read_message(client.received, to_head=method == b"HEAD")
    assert (message.one(b"content-length"), message.body + rest) == (b"5", b"hello" if method == b"GET" else b"")
    assert client.closed == ""


@TWISTEDS_OWN
def test_a_method_that_a_resource_does_not_know_is_its_own_refusal(make_gateway: Make) -> None:
    gateway = make_gateway(mounts={b"/body": Body()})
    message = ask(gateway, b"GET", b"/body")
    assert message.status == 405
    assert gateway.exchanges[0].status == 405


def test_a_resource_that_raises_is_a_500_in_order(make_gateway: Make, logged_errors: LoggedErrors) -> None:
    class Raising(Resource):
        isLeaf = True

        def render_GET(self, request: Any) -> bytes:
            raise RuntimeError("no luck today")

    gateway = make_gateway(mounts={b"/raise": Raising()})
    message = ask(gateway, b"GET", b"/raise")
    assert message.status == 500
    assert b"no luck" not in message.body
    (event,) = logged_errors.take()
    assert "no luck" in str(event["log_failure"].value)


def test_a_resource_may_be_deferred(make_gateway: Make) -> None:
    later: Deferred[Resource] = Deferred()
    gateway = make_gateway(mounts={b"/later": DeferredResource(later)})
    client = gateway.connect()
    client.send(request(b"GET", b"/later"))
    assert client.received == b""
    later.callback(Data(b"now", "text/plain"))
    assert read_messages(client.received)[0].body == b"now"


def test_files_are_served_as_their_client_takes_them(make_gateway: Make, tmp_path: Any) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "large.bin").write_bytes(content)
    gateway = make_gateway(mounts={b"/files": File(str(tmp_path))})
    client = gateway.connect()
    client.stop_reading()
    client.send(request(b"GET", b"/files/large.bin"))
    assert len(client.near._unsent) < 2 * 65536
    client.start_reading()
    (message,) = read_messages(client.take())
    assert message.body == content
    client.send(request(b"GET", b"/files/large.bin", b"Range: bytes=10-19"))
    (message,) = read_messages(client.take())
    assert (message.status, message.body) == (206, content[10:20])
    client.send(request(b"GET", b"/files/large.bin"))
    assert client.closed == ""


def test_a_client_that_goes_while_a_file_is_served_ends_it(make_gateway: Make, tmp_path: Any) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(1 << 20))
    gateway = make_gateway(mounts={b"/files": File(str(tmp_path))})
    client = gateway.connect()
    client.stop_reading()
    client.send(request(b"GET", b"/files/large.bin"))
    client.reset()
    (exchange,) = gateway.exchanges
    assert exchange.code == "client_gone"


# -- all of it in a stock site


class Stock:
    """A stock `twisted.web` site over the gateway's tree."""

    def __init__(self, gateway: MemoryGateway, at: bytes = b"") -> None:
        self.gateway = gateway
        composition = gateway.composition
        entrance: Any = SiteAdapter(
            composition.resource, composition.policy, composition.reader, gateway.finished, gateway.reactor.seconds
        )
        assert verifyObject(IResource, entrance)
        root: Any = entrance
        if at:
            root = Resource()
            root.putChild(at, entrance)
        self.site = Site(root, reactor=gateway.reactor, parsePOSTFormSubmission=False)
        self.clients: list[Peer] = []

    def connect(self) -> Peer:
        client = join(
            self.gateway.reactor, self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000)), peer="192.0.2.1"
        )
        self.clients.append(client)
        return client

    def ask(self, *arguments: bytes, **more: bytes) -> Message:
        client = self.connect()
        client.send(request(*arguments, **more))
        (message,) = read_messages(client.received, [arguments[0]])
        return message


@pytest.fixture
def make_stock(make_gateway: Make) -> Any:
    made: list[Stock] = []

    def make(at: bytes = b"", **options: Any) -> Stock:
        made.append(Stock(make_gateway(**options), at))
        return made[-1]

    yield make
    for stock in made:
        for client in stock.clients:
            client.reset()


def test_in_a_stock_site_no_upgrade_is_passed_on(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request(b"GET", b"/v1/users", b"Connection: Upgrade", b"Upgrade: echo"))
    service = stock.gateway.origin().only
    assert b"upgrade" not in service.received.lower()
    service.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    (answer,) = read_messages(client.take())
    assert (answer.status, answer.code) == (502, "upstream_invalid")


def test_in_a_stock_site_a_request_reaches_its_service_the_same_way(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request(b"GET", b"/v1/users/7?a=1", b"Accept: */*"))
    service = stock.gateway.origin().only
    message, rest = read_message(service.received)
    expected, _ = read_message(forwarded(b"GET", b"/v1/users/7?a=1", b"Accept: */*"))
    assert (message.start, rest) == (expected.start, b"")
    assert sorted((name.lower(), value) for name, value in message.fields) == sorted(
        (name.lower(), value) for name, value in expected.fields
    )
    service.send(
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: text/x\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    )
    (answer,) = read_messages(client.take())
    assert answer.start == b"HTTP/1.1 200 Fine"
    assert answer.values(b"set-cookie") == [b"a=1", b"b=2"]
    assert answer.one(b"content-type") == b"text/x"
    assert answer.one(b"x-request-id") == b"r1"
    assert answer.body == b"hi"
    assert client.closed == ""
    assert stock.gateway.idle() == (1, 0)
    (exchange,) = stock.gateway.exchanges
    assert (exchange.status, exchange.bytes_out, exchange.tenant) == (200, 2, b"koder")


def test_in_a_stock_site_an_ipv4_peer_within_ipv6_is_the_ipv4_one(make_stock: Any) -> None:
    stock = make_stock()
    address = IPv6Address("TCP", "::ffff:192.0.2.1", 50000)
    client = join(stock.gateway.reactor, stock.site.buildProtocol(address), peer=address.host)
    stock.clients.append(client)
    client.send(request())
    message, _ = read_message(stock.gateway.origin().only.received)
    assert message.one(b"x-forwarded-for") == b"192.0.2.1"
    client.reset()
    assert stock.gateway.exchanges[0].peer == b"192.0.2.1"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
)
def test_in_a_stock_site_the_services_own_fields_stand_once(framing: bytes, make_stock: Any) -> None:
    """And no type of Twisted's, where the service states none."""
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    stock.gateway.origin().only.send(
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: theirs\r\n" + framing
    )
    (answer,) = read_messages(client.take())
    assert answer.one(b"date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert answer.one(b"server") == b"theirs"
    assert not answer.values(b"content-type")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_in_a_stock_site_a_body_goes_with_its_length(framing: str, make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    if framing == "length":
        client.send(request(b"POST", b"/v1/users", b"Content-Length: 5", body=b"hello"))
    else:
        client.send(request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"))
    (message,) = serve(stock.gateway, lambda _: OK)
    assert (message.body, message.one(b"content-length")) == (b"hello", b"5")
    assert read_messages(client.take())[0].body == b"hi"


def test_in_a_stock_site_answers_stream(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    service = stock.gateway.origin().only
    service.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    service.send(b"3\r\none\r\n")
    assert client.received.endswith(b"3\r\none\r\n")
    service.send(b"0\r\nX-Sum: 1\r\n\r\n")
    assert read_messages(client.take())[0].body == b"one"
    client.send(request())
    stock.gateway.origin().last.send(b"HTTP/1.1 200 OK\r\n\r\nuntil").close()
    assert read_messages(client.take())[0].body == b"until"


@pytest.mark.parametrize(
    ("arguments", "host", "expected"),
    [
        ((b"GET", b"/nowhere"), HOST, (404, "no_route")),
        ((b"GET", b"/"), HOST, (404, "no_route")),
        ((b"GET", b"/v1/../x"), HOST, (400, "bad_request")),
        ((b"GET", b"/v1/users%2f"), HOST, (400, "bad_request")),
        ((b"TRACE", b"/v1/users"), HOST, (405, "method_not_allowed")),
        ((b"BREW", b"/v1/users"), HOST, (501, "not_implemented")),
        ((b"GET", b"/v1/users"), b"evil.example", (421, "misdirected_request")),
        ((b"GET", b"/v1/users"), b"nobody.id.koder.dev", (404, "unknown_tenant")),
        ((b"GET", b"/v1/users"), b"closed.id.koder.dev", (403, "tenant_suspended")),
        ((b"POST", b"/v1/users", b"Content-Length: 11"), HOST, (413, "body_too_large")),
    ],
)
def test_in_a_stock_site_refusals_are_the_same(
    arguments: tuple[bytes, ...], host: bytes, expected: tuple[int, str], make_stock: Any
) -> None:
    stock = make_stock(tenants=TENANTS, settings=settings_with(requests={"max_body": 10}))
    client = stock.connect()
    client.send(request(*arguments, host=host, body=b"x" * 11 if b"POST" in arguments else b""))
    assert problem(client.received) == expected
    assert not stock.gateway.origin().connections
    (exchange,) = stock.gateway.exchanges
    assert exchange.code == expected[1]


def test_in_a_stock_site_cors_and_limits_apply(make_stock: Any) -> None:
    settings = settings_with(limits=(LimitRule("few", ("ip",), 1, 60),), cors={"origins": (ORIGIN.decode(),)})
    stock = make_stock(settings=settings)
    preflight = stock.ask(b"OPTIONS", b"/v1/users", b"Origin: " + ORIGIN, b"Access-Control-Request-Method: PUT")
    assert preflight.status == 204
    assert b"PUT" in preflight.one(b"access-control-allow-methods")
    answers = [stock.ask(b"GET", b"/nowhere", b"Origin: " + ORIGIN) for _ in range(2)]
    assert [answer.status for answer in answers] == [404, 429]
    for answer in (preflight, *answers):
        assert answer.one(b"access-control-allow-origin") == ORIGIN
    assert answers[1].one(b"retry-after") == b"60"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"garbage\r\n\r\n", 502),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304),
    ],
)
def test_in_a_stock_site_what_the_service_makes_of_it(answer: bytes, status: int, make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    stock.gateway.origin().only.send(answer)
    (message,) = read_messages(client.take())
    assert message.status == status


def test_in_a_stock_site_an_answer_to_head_keeps_its_length(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request(b"HEAD", b"/v1/users"))
    stock.gateway.origin().only.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    message, rest = read_message(client.take(), to_head=True)
    assert (message.one(b"content-length"), rest) == (b"99", b"")
    assert client.closed == ""
    assert stock.gateway.idle() == (1, 0)


def test_in_a_stock_site_an_answer_cut_short_is_never_a_clean_end(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    service = stock.gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n")
    service.close()
    assert client.closed == "reset"
    assert not client.received.endswith(b"0\r\n\r\n")
    (exchange,) = stock.gateway.exchanges
    assert exchange.code == "closed"


@pytest.mark.parametrize("begun", [False, True])
def test_in_a_stock_site_a_client_that_goes_lets_the_service_go(begun: bool, make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    service = stock.gateway.origin().only
    if begun:
        service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    client.reset()
    assert service.closed == "reset"
    assert stock.gateway.idle() == (0, 0)
    (exchange,) = stock.gateway.exchanges
    assert exchange.code == "client_gone"


def test_in_a_stock_site_a_slow_client_holds_the_service(make_stock: Any) -> None:
    stock = make_stock()
    client = stock.connect()
    client.send(request())
    client.stop_reading()
    service = stock.gateway.origin().only
    service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n")
    sent = 0
    while not service.near.paused:
        service.send(b"x" * 10000)
        sent += 10000
        assert sent < 400000
    client.start_reading()
    assert not service.near.paused
    service.send_in([b"x" * 10000] * (40 - sent // 10000))
    assert len(read_messages(client.take())[0].body) == 400000


def test_in_a_stock_site_the_tree_may_stand_below_a_path(make_stock: Any) -> None:
    stock = make_stock(at=b"v1")
    client = stock.connect()
    client.send(request(b"GET", b"/v1/users/7"))
    assert stock.gateway.origin().only.received
    assert stock.ask(b"GET", b"/v1").status == 404
    client.reset()


def test_in_a_stock_site_mounted_resources_render_as_ever(make_stock: Any) -> None:
    path = Path()
    root = Resource()
    root.putChild(b"a", Data(b"child", "text/plain"))
    stock = make_stock(mounts={b"/path": path, b"/body": Body(), b"/v1/site": root})
    message = stock.ask(b"GET", b"/path/x")
    assert (message.status, message.one(b"x-request-id")) == (200, b"r1")
    assert path.seen == [([b"path"], [b"x"])]
    assert stock.ask(b"GET", b"/v1/site/a").body == b"child"
    client = stock.connect()
    client.send(request(b"POST", b"/body", b"Content-Length: 5", body=b"hello"))
    assert read_messages(client.take())[0].body == b"5:hello"
    assert [exchange.status for exchange in stock.gateway.exchanges] == [200, 200, 200]


def test_nothing_can_be_put_below_the_entrance(gateway: MemoryGateway) -> None:
    composition = gateway.composition
    entrance = SiteAdapter(composition.resource, composition.policy, composition.reader, gateway.finished)
    with pytest.raises(TypeError):
        entrance.putChild(b"x", Resource())
