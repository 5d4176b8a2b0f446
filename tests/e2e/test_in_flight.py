"""A limit on requests in flight, on every way in: however an exchange ends, its place is free again."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.conftest import LoggedErrors
from tests.kit.http1 import read_message
from tests.kit.http2_frames import block, data, headers, reset
from tests.kit.http2_memory import Http2
from tests.kit.memory import HOST, MemoryGateway, Peer, join, request, settings_with

TWO = LimitRule("reports", ("tenant",), 0, 1, in_flight=2)
FAILURES = LimitRule("guess", ("ip",), 50, 60, charge="failures")
SETTINGS = settings_with(limits=(TWO, FAILURES), services={})
UPGRADE = (b"Connection: Upgrade", b"Upgrade: echo")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Slow(Resource):
    """A mounted resource that answers when it is told to."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []

    def render(self, request: Request) -> int | bytes:
        """Wait, or fail at once."""
        if request.args.get(b"fail"):
            raise RuntimeError("a fault of the application")
        self.asked.append(request)
        request.notifyFinish().addErrback(lambda reason: self.asked.remove(request))
        return NOT_DONE_YET

    def answer(self) -> None:
        """Answer the oldest request."""
        if self.asked:
            request = self.asked.pop(0)
            request.write(b"ok")
            request.finish()


def make(mount: IResource | None = None) -> MemoryGateway:
    return MemoryGateway(settings_with(limits=(TWO, FAILURES)), mounts={b"/app": mount} if mount else None)


def held(gateway: MemoryGateway) -> int:
    """How many requests the limit counts as in flight."""
    return sum(gateway.composition.policy.limiter.meters[0].held.values())


def stock_client(gateway: MemoryGateway) -> Peer:
    """A client of a stock Site."""
    made = gateway.composition
    adapter = SiteAdapter(made.resource, made.policy, made.reader, gateway.finished, gateway.reactor.seconds)
    site = Site(adapter, reactor=gateway.reactor, parsePOSTFormSubmission=False)
    client = join(
        gateway.reactor, site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000)), peer="192.0.2.1", secure=True
    )
    gateway.clients.append(client)
    return client


def test_one_more_is_overloaded_until_one_has_ended() -> None:
    gateway = make()
    clients = [gateway.connect().send(request()) for _ in range(3)]
    message, _ = read_message(clients[2].take())
    assert (message.status, message.code) == (503, "overloaded")
    assert message.fields.count((b"Retry-After", b"1")) == 1
    assert not any(name.lower().startswith(b"ratelimit") and b"reports" in value for name, value in message.fields)
    assert b'The limit \\"reports\\" allows 2 requests in flight' in message.body
    assert held(gateway) == 2
    gateway.origin().connections[0].send(ANSWER)
    assert held(gateway) == 1
    clients[2].send(request())
    gateway.advance(0.5)
    assert held(gateway) == 2
    gateway.hang_up()
    assert held(gateway) == 0


def test_a_tunnel_counts_until_it_ends() -> None:
    gateway = make()
    client = gateway.connect().send(request(b"GET", b"/v1/users", *UPGRADE))
    gateway.advance(0.5)
    gateway.origin().only.send(SWITCH)
    assert client.take().startswith(b"HTTP/1.1 101 ")
    gateway.advance(60)
    assert held(gateway) == 1
    assert gateway.composition.policy.limiter.meters[1].held == {}, "a failure is known at the switch"
    gateway.hang_up()
    assert held(gateway) == 0


def test_a_refusal_by_a_later_step_frees_the_place() -> None:
    gateway = make()
    for _ in range(5):
        client = gateway.connect().send(request(b"GET", b"/nowhere"))
        assert client.take().startswith(b"HTTP/1.1 404 ")
    assert held(gateway) == 0
    gateway.hang_up()


# Whatever happens. Each step is one of a client, of a service, or of time.

POST = request(b"POST", b"/v1/users", b"Content-Length: 9", body=b"part")
CHUNKED = request(b"POST", b"/v1/users", b"Transfer-Encoding: chunked", body=b"4\r\npart\r\n")
SENDS = (
    request(),
    request() * 3,
    request(b"GET", b"/nowhere"),
    request(b"GET", b"/app"),
    request(b"GET", b"/app?fail=1"),
    request(b"GET", b"/v1/users", *UPGRADE),
    POST,
    POST + b" rest",
    CHUNKED,
    CHUNKED + b"0\r\n\r\n",
    b"nonsense\r\n",
    b"more bytes",
)
ANSWERS = (
    ANSWER,
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    SWITCH,
    b"nonsense\r\n\r\n",
)
STEPS = st.one_of(
    st.tuples(st.just("connect"), st.sampled_from(["http1", "stock"])),
    st.tuples(st.just("send"), st.integers(0, 4), st.sampled_from(SENDS)),
    st.tuples(st.sampled_from(["close", "reset", "stop"]), st.integers(0, 4)),
    st.tuples(st.just("answer"), st.integers(0, 4), st.sampled_from(ANSWERS)),
    st.tuples(st.sampled_from(["service closes", "service resets"]), st.integers(0, 4)),
    st.tuples(st.just("mounted answers")),
    st.tuples(st.just("time"), st.sampled_from([0.5, 3.0, 70.0])),
    st.tuples(st.just("services"), st.sampled_from(["accept", "refuse", "ignore"])),
)


def play(gateway: MemoryGateway, slow: Slow, step: tuple[object, ...]) -> None:
    name, *rest = step
    alive = [client for client in gateway.clients if not (client.closed or client.gone)]
    services = [each for each in gateway.origin().connections if not (each.closed or each.gone)]
    match name, rest:
        case "connect", ["http1"]:
            gateway.connect()
        case "connect", _:
            stock_client(gateway)
        case "send", [int(index), bytes(sent)] if alive:
            alive[index % len(alive)].send(sent)
        case "close", [int(index)] if alive:
            alive[index % len(alive)].close()
        case "reset", [int(index)] if alive:
            alive[index % len(alive)].reset()
        case "stop", [int(index)] if alive:
            alive[index % len(alive)].stop_reading()
        case "answer", [int(index), bytes(sent)] if services:
            services[index % len(services)].send(sent)
        case "service closes", [int(index)] if services:
            services[index % len(services)].close()
        case "service resets", [int(index)] if services:
            services[index % len(services)].reset()
        case "mounted answers", _:
            slow.answer()
        case "time", [float(seconds)]:
            gateway.advance(seconds)
        case "services", [str(answers)]:
            gateway.origin().answers = answers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=25))
def test_the_count_is_zero_in_the_end(logged_errors: LoggedErrors, steps: list[tuple[object, ...]]) -> None:
    slow = Slow()
    gateway = make(slow)
    gateway.connect()
    for step in steps:
        play(gateway, slow, step)
        assert 0 <= held(gateway) <= 2
    for client in gateway.clients:
        client.reset()
    gateway.advance(200.0)
    assert [meter.held for meter in gateway.composition.policy.limiter.meters] == [{}, {}]
    taken = [event["log_failure"].value.args[0] for event in logged_errors.take()]
    assert set(taken) <= {"a fault of the application"}


H2 = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans(), st.sampled_from([b"/v1/users", b"/nowhere", b"/app"])),
        st.tuples(st.sampled_from(["reset", "end", "answer", "service resets", "time", "mounted answers"])),
    ),
    max_size=20,
)


@given(H2, st.booleans())
def test_so_it_is_over_http2(steps: list[tuple[object, ...]], closes: bool) -> None:
    slow = Slow()
    gateway = make(slow)
    client = Http2(gateway)
    streams: list[int] = []
    for step in steps:
        services = [each for each in gateway.origin().connections if not (each.closed or each.gone)]
        match step:
            case "open", bool(ends), bytes(path):
                streams.append(2 * len(streams) + 1)
                fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", path), (b":authority", HOST)]
                client.send(headers(streams[-1], block(fields), end=ends))
            case ("reset",) if streams:
                client.send(reset(streams[-1]))
            case ("end",) if streams:
                client.send(data(streams[-1], b"rest", end=True))
            case ("answer",) if services:
                services[-1].send(ANSWER)
            case ("service resets",) if services:
                services[-1].reset()
            case ("mounted answers",):
                slow.answer()
            case ("time",):
                gateway.advance(3.0)
        assert 0 <= held(gateway) <= 2
    for each in gateway.clients:
        (each.close if closes else each.reset)()
    gateway.advance(200.0)
    assert [meter.held for meter in gateway.composition.policy.limiter.meters] == [{}, {}]
