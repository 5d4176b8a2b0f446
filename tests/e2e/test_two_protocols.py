"""What passes over HTTP/1.1 passes over HTTP/2 and the other way round: each case is asked of one gateway over both,
and over a stock Site where that has the same bounds, and status, what the service receives and what the client gets
are compared. Part of the cases is asked of a mounted resource too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.doors import Answer, Doors, open_doors, plain
from tests.kit.http1 import Message
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, data, headers, in_frames
from tests.kit.recording import ALLOWED, HOST, connect

PATH = b"/v1/users"
KODER = b"https://koder.example"
# Those of each exchange, or of the way that it came.
OWN = {
    b"host",
    b"x-request-id",
    b"traceparent",
    b"forwarded",
    b"x-forwarded-proto",
    b"via",
    b"date",
    b"strict-transport-security",
    b"connection",
}
FRAMING = {b"content-length", b"transfer-encoding"}
MAX_HEAD, MAX_FIELDS = 32768, 100
Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Case:
    """A request in terms of both protocols. `body`: its pieces, None without one; `length`: it is announced.
    `crumbs`: a cookie, in one line or many. `statuses`: what it may be answered."""

    name: str
    method: bytes = b"GET"
    fields: Pairs = ()
    crumbs: Sequence[bytes] = ()
    body: Sequence[bytes] | None = None
    length: bool = False
    trailers: Pairs = ()
    target: bytes = PATH
    statuses: tuple[int, ...] = (200,)

    @property
    def unnamed(self) -> bool:
        """Whether its request line alone is refused over HTTP/1.1, before any Host has come."""
        return len(self.method) + len(self.target) > 16384

    def http1(self) -> bytes:
        """As HTTP/1.1 has it."""
        pairs = [(b"Host", HOST), *self.fields]
        if self.crumbs:
            pairs.append((b"Cookie", b"; ".join(self.crumbs)))
        body = b""
        if self.body is not None and self.length:
            body = b"".join(self.body)
            pairs.append((b"Content-Length", b"%d" % len(body)))
        elif self.body is not None:
            pairs.append((b"Transfer-Encoding", b"chunked"))
            trailers = b"".join(b"%b: %b\r\n" % pair for pair in self.trailers)
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in self.body if each)
            body += b"0\r\n%b\r\n" % trailers
        lines = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (self.method, self.target, lines, body)

    def http2(self) -> bytes:
        """As HTTP/2 has it: an empty body is an empty DATA frame."""
        fields = [(b":method", self.method), (b":scheme", b"https"), (b":path", self.target), (b":authority", HOST)]
        fields += [(name.lower(), value) for name, value in self.fields]
        fields += [(b"cookie", crumb) for crumb in self.crumbs]
        if self.length and self.body is not None:
            fields.append((b"content-length", b"%d" % sum(map(len, self.body))))
        sent = in_frames(1, block(fields), end=self.body is None)
        if self.body is None:
            return sent
        last = not self.trailers
        for number, piece in enumerate(self.body, 1):
            sent += data(1, piece, end=last and number == len(self.body))
        return sent if last else sent + headers(1, block([(n.lower(), v) for n, v in self.trailers]), end=True)


def head_of(size: int, fields: int) -> Pairs:
    """As many fields that make a head of this size in HTTP/1.1."""
    first = len(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (PATH, HOST))
    left = size - first - fields * len(b"x-00: \r\n")
    each, more = divmod(left, fields)
    return [(b"x-%02d" % number, b"v" * (each + (number < more))) for number in range(fields)]


def crumbs_of(size: int, count: int) -> Sequence[bytes]:
    """A cookie in so many crumbs that makes a head of this size."""
    first = len(b"GET %b HTTP/1.1\r\nHost: %b\r\nCookie: \r\n\r\n" % (PATH, HOST))
    each, more = divmod(size - first - 2 * (count - 1), count)
    return [b"c" * (each + (number < more)) for number in range(count)]


def too_many() -> list[tuple[bytes, bytes]]:
    return [(b"x-%d" % number, b"") for number in range(MAX_FIELDS)]


CASES = [
    *(
        Case(f"method {method.decode()}", method)
        for method in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
    ),
    *(
        Case(f"method {method.decode()[:9]}", method, statuses=(501,))
        for method in (b"get", b"FOO", b"QUERY", b"X" * 60)
    ),
    Case("method TRACE", b"TRACE", statuses=(405,)),
    Case("CONNECT with a path", b"CONNECT", statuses=(405,)),
    Case("CONNECT with a target that is none", b"CONNECT", target=b"*", statuses=(405,)),
    Case("a method of 40 kB", b"X" * 40_000, statuses=(501,)),
    Case("a method of 40 kB for a target of 40 kB", b"X" * 40_000, target=b"/" * 40_000, statuses=(501,)),
    *(Case(f"a target of {n} kB", target=PATH + b"?" + b"q" * n * 1000, statuses=(414,)) for n in (9, 40, 98)),
    *(Case(f"a head of {n} kB", fields=head_of(n * 1000, 9), statuses=(431,)) for n in (40, 98, 120)),
    Case("a field of 98 kB", fields=[(b"X-Large", b"v" * 98_000)], statuses=(431,)),
    Case(
        "an origin in front of a large field", fields=[(b"Origin", ALLOWED), (b"X-L", b"v" * 40_000)], statuses=(431,)
    ),
    Case("an origin, and fields too many", fields=[(b"Origin", ALLOWED), *too_many()], statuses=(431,)),
    Case("a tenant's origin, and fields too many", fields=[(b"Origin", KODER), *too_many()], statuses=(431,)),
    Case("a tenant's origin, and a method", b"FOO", fields=[(b"Origin", KODER)], statuses=(501,)),
    Case("two origins, and fields too many", fields=[(b"Origin", ALLOWED)] * 2 + too_many(), statuses=(431,)),
    *(Case(f"a head of {n} fields at the limit", fields=head_of(MAX_HEAD, n)) for n in (8, 50, 99)),
    *(
        Case(f"a head of {n} fields over the limit", fields=head_of(MAX_HEAD + 1, n), statuses=(431,))
        for n in (8, 50, 99)
    ),
    Case("a field too many", fields=too_many(), statuses=(431,)),
    *(Case(f"a cookie of {n} crumbs at the limit", crumbs=crumbs_of(MAX_HEAD, n)) for n in (2, 100, 256)),
    *(
        Case(f"a cookie of {n} crumbs over the limit", crumbs=crumbs_of(MAX_HEAD + 1, n), statuses=(431,))
        for n in (2, 100, 256)
    ),
    Case("a cookie in lines too many", fields=[(b"Cookie", b"a=b")] * 400, statuses=(431,)),
    *(
        Case(f"{method.decode()} with an empty body", method, body=[b""])
        for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PUT", b"PATCH")
    ),
    Case("an empty body of a length", b"POST", body=[b""], length=True),
    Case("a body", b"POST", body=[b"one", b"two"]),
    Case("a body of a length", b"POST", body=[b"one", b"two"], length=True),
    Case("a body of a GET", body=[b"one"]),
    Case("a body at the limit", b"POST", body=[b"b" * 16384], length=True),
    Case("a body over the limit", b"POST", body=[b"b" * 16384, b"b"], length=True, statuses=(413,)),
    Case("trailers", b"POST", body=[b"one"], trailers=[(b"X-Sum", b"1"), (b"X-Other", b"2")]),
    Case("trailers of an empty body", b"POST", body=[b""], trailers=[(b"X-Sum", b"1")]),
    Case("no trailers that pass, of an empty body", b"POST", body=[b""], trailers=[(b"X-Other", b"1")]),
    Case("trailers at the limit", b"POST", body=[b"one"], trailers=[(b"X-Sum", b"1")] * 32),
    Case("trailers over the limit", b"POST", body=[b"one"], trailers=[(b"X-Sum", b"1")] * 33, statuses=(400,)),
    Case("a long trailer", b"POST", body=[b"one"], trailers=[(b"X-Sum", b"1" * 5000)], statuses=(400,)),
    Case("an expectation", b"POST", [(b"Expect", b"more")], body=[b"one"], length=True, statuses=(417,)),
    Case("a target with an escape", target=PATH + b"?q=%C3%A9"),
    Case("a target with 8-bit bytes", target=PATH + b"?q=\xc3\xa9", statuses=(400,)),
    Case("a target at the limit", target=PATH + b"?" + b"q" * (8192 - len(PATH) - 1)),
    Case("a target over the limit", target=PATH + b"?" + b"q" * (8192 - len(PATH)), statuses=(414,)),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with open_doors(folder) as doors:
        yield doors


@pytest.fixture
def doors(shared: Doors) -> Doors:
    shared.origin.forget()
    shared.origin.answers.clear()
    return shared


def ask(doors: Doors, way: str, case: Case) -> Answer:
    """What is answered; a stream that is reset has the status 0."""
    if way == "http2":
        with Http2Client.connect(doors.ports[0], HOST) as client:
            client.start()
            client.send(case.http2())
            while not client.answers[1].over:
                assert client.next() is not None, client.described()
            answer = client.answers[1]
            return Answer(answer.status, answer.fields, answer.body)
    with connect(doors.ports[way == "stock"], secure=way == "http1") as client:
        client.send(case.http1())
        return plain(client.answer(case.method))


def meaning(message: Message) -> tuple[object, ...]:
    """What a service makes of a request; how it is framed included."""
    fields = sorted((name.lower(), value) for name, value in message.fields if name.lower() not in OWN)
    trailers = [(name.lower(), value) for name, value in message.trailers]
    return message.method, message.target, fields, message.body, trailers


def told(answer: Answer, *, unnamed: bool = False) -> tuple[object, ...]:
    """What a client makes of an answer; problems carry an id of their own. Of a host that is `unnamed` the answer may
    depend on anything."""
    fields = sorted(
        pair for pair in answer.fields if pair[0] not in OWN | FRAMING and not (unnamed and pair[0] == b"vary")
    )
    return answer.status, fields, answer.body if answer.status < 400 else b""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_protocols_have_one_limit(doors: Doors, case: Case) -> None:
    seen = {}
    for way in ("http1", "http2"):
        answer = ask(doors, way, case)
        assert answer.status in case.statuses, way
        received = [meaning(message) for message in doors.received()]
        doors.origin.forget()
        assert len(received) == (case.statuses == (200,)), way
        seen[way] = told(answer, unnamed=case.unnamed), received
    assert seen["http1"] == seen["http2"]


# What Twisted itself reads of a head, and trailers are its own to bound.
STOCK_HEAD = 16384
STOCK = [
    case
    for case in CASES
    if case.http1().find(b"\r\n\r\n") <= STOCK_HEAD and not (case.trailers and case.statuses == (400,))
]


@pytest.mark.parametrize("case", STOCK, ids=lambda case: case.name)
def test_a_stock_site_answers_the_same(doors: Doors, case: Case) -> None:
    assert ask(doors, "stock", case).status in case.statuses


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.body == [b""] and not case.trailers], ids=lambda case: case.name
)
@pytest.mark.parametrize("way", ["http1", "http2", "stock"])
def test_an_empty_body_is_none_for_the_service(doors: Doors, way: str, case: Case) -> None:
    assert ask(doors, way, case).status == 200
    (message,) = doors.received()
    assert message.values(b"transfer-encoding") == []
    assert message.body == b""


STATUSES = (200, 201, 204, 205, 206, 299, 301, 304, 404, 418, 499, 503, 599, 600, 999, 101, 99)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_service_s_status_is_the_same_over_both(doors: Doors, status: int, method: bytes) -> None:
    doors.origin.answers[PATH] = b"HTTP/1.1 %03d X\r\nX-A: b\r\nContent-Length: 0\r\n\r\n" % status
    http1, http2, stock = (ask(doors, way, Case("", method)) for way in ("http1", "http2", "stock"))
    assert http1.status == http2.status == stock.status == (status if 200 <= status < 600 else 502)
    assert told(http1) == told(http2)


MOUNTED = [
    *(
        Case(
            f"{method.decode()} {status} in {pieces}",
            method,
            target=b"/mounted?status=%d&pieces=%d" % (status, pieces),
        )
        for method in (b"GET", b"HEAD", b"POST")
        for status in (200, 204, 205, 304, 404, 503)
        for pieces in (0, 1, 2)
    ),
    Case("a body", b"POST", body=[b"one", b"two"], target=b"/mounted"),
    Case("a body of a length", b"POST", body=[b"one", b"two"], length=True, target=b"/mounted"),
    Case("an empty body", body=[b""], target=b"/mounted"),
    Case("an empty body of a POST", b"POST", body=[b""], target=b"/mounted"),
    Case("a cookie", crumbs=[b"a=b", b"c=d"], fields=[(b"X-M", b"1")], target=b"/mounted"),
]


@pytest.mark.parametrize("case", MOUNTED, ids=lambda case: case.name)
def test_a_mounted_resource_is_asked_and_heard_the_same(doors: Doors, case: Case) -> None:
    http1, http2, stock = (ask(doors, way, case) for way in ("http1", "http2", "stock"))
    assert told(http1) == told(http2)
    assert (http1.status, http1.values(b"x-a")) == (stock.status, stock.values(b"x-a"))
    if case.body is None:
        assert http1.body == stock.body
