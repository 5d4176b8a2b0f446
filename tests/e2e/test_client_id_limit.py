"""A limit by OAuth client, on every way in: who is counted, and that its form reaches the service as it came."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable

import hpack
import pytest
from twisted.internet.address import IPv4Address
from twisted.web.server import Site

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.http1 import is_whole, read_message, read_messages
from tests.kit.http2_frames import HEADERS, data, headers
from tests.kit.http2_memory import Http2, asking
from tests.kit.memory import MemoryGateway, join, request, settings_with

Make = Callable[..., MemoryGateway]
Pieces = Iterable[bytes]
TARGET = b"/oauth/v2/token"
FORM = b"application/x-www-form-urlencoded"
RULE = LimitRule("clients", ("tenant", "client_id"), 2, 60, paths=(TARGET,))
SETTINGS = settings_with(limits=(RULE,))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def turns(gateway: MemoryGateway) -> None:
    for _ in range(4):
        gateway.reactor.advance(0)


def served(gateway: MemoryGateway, body: bytes) -> bool:
    """Whether the service has got one request, with this body; it answers."""
    turns(gateway)
    for connection in gateway.origin("oauth2").connections:
        if is_whole(connection.received):
            message, rest = read_message(connection.take())
            assert (message.body, rest) == (body, b"")
            connection.send(OK)
            return True
    return False


def with_length(gateway: MemoryGateway, pieces: Pieces, *lines: bytes) -> int:
    whole = b"".join(pieces)
    client = gateway.connect()
    client.send(request(b"POST", TARGET, b"Content-Type: " + FORM, b"Content-Length: %d" % len(whole), *lines))
    client.send_in(pieces)
    assert served(gateway, whole) or client.received
    return read_messages(client.received)[-1].status


def at_once(gateway: MemoryGateway, pieces: Pieces, *lines: bytes) -> int:
    whole = b"".join(pieces)
    client = gateway.connect()
    framing = b"Content-Length: %d" % len(whole)
    client.send(request(b"POST", TARGET, b"Content-Type: " + FORM, framing, *lines, body=whole))
    assert served(gateway, whole) or client.received
    return read_messages(client.received)[-1].status


def in_chunks(gateway: MemoryGateway, pieces: Pieces, *lines: bytes) -> int:
    client = gateway.connect()
    client.send(request(b"POST", TARGET, b"Content-Type: " + FORM, b"Transfer-Encoding: chunked", *lines))
    client.send_in(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in filter(None, pieces))
    client.send(b"0\r\n\r\n")
    assert served(gateway, b"".join(pieces)) or client.received
    return read_messages(client.received)[-1].status


def over_http2(gateway: MemoryGateway, pieces: Pieces, *lines: bytes) -> int:
    client = Http2(gateway)
    more = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    came = client.send(headers(1, asking(TARGET, b"POST", (b"content-type", FORM), *more), end=False))
    for piece in pieces:
        came += client.send(data(1, piece))
    came += client.send(data(1, b"", end=True))
    assert served(gateway, b"".join(pieces)) or came
    came += client.send()
    turns(gateway)
    came += client.send()
    (block,) = [each.payload for each in came if each.kind == HEADERS]
    return int(hpack.Decoder().decode(block, raw=True)[0][1])


def in_a_stock_site(gateway: MemoryGateway, pieces: Pieces, *lines: bytes) -> int:
    made, whole = gateway.composition, b"".join(pieces)
    adapter = SiteAdapter(made.resource, made.policy, made.reader, gateway.finished, gateway.reactor.seconds)
    channel = Site(adapter, reactor=gateway.reactor, parsePOSTFormSubmission=False).buildProtocol(
        IPv4Address("TCP", "192.0.2.1", 50000)
    )
    client = join(gateway.reactor, channel, peer="192.0.2.1")
    gateway.clients.append(client)
    framing = b"Content-Length: %d" % len(whole)
    client.send(request(b"POST", TARGET, b"Content-Type: " + FORM, framing, *lines, body=whole))
    assert served(gateway, whole) or client.received
    return read_messages(client.received)[-1].status


Way = Callable[..., int]
WAYS = (with_length, at_once, in_chunks, over_http2, in_a_stock_site)
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
SPELLINGS = (
    (b"client_id=app&client_secret=1",),
    (b"client%5fid=", b"a", b"%70", b"p"),
    (b"client_secret=3&", b"client_id=App"),
)
PADDING = b"&pad=" + b"x" * 9000


@ways
def test_a_client_has_one_bucket_however_it_says_who_it_is(way: Way, make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    assert [way(gateway, pieces) for pieces in SPELLINGS] == [200, 200, 429]
    assert way(gateway, (b"client_id=another",)) == 200
    assert way(gateway, (b"x=1",), b"Authorization: Basic " + b64encode(b"app:guess")) == 429


@ways
def test_who_hides_shares_a_bucket_with_all_others_who_do(way: Way, make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    hidden = (
        (b"client_id=a&client_id=b",),
        (b"x=1",),
        (PADDING[1:] + b"&client_id=late",),
    )
    assert [way(gateway, pieces) for pieces in hidden] == [200, 200, 429]
    assert way(gateway, (b"client_id=%00",)) == 429
    assert way(gateway, (b"client_id=a",), b"Authorization: Basic " + b64encode(b"b:c")) == 429
    assert way(gateway, (b"client_id=a",)) == 200


@ways
@pytest.mark.parametrize("size", [4095, 4096, 4097, 9000])
def test_the_first_part_counts_and_the_whole_arrives(way: Way, size: int, make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    for number in range(3):
        body = (b"client_id=app%d" % number + PADDING)[:size]
        assert way(gateway, (body[:10], body[10:4095], body[4095:])) == 200
    # At the end of the first part, it is known only if the form ends there too.
    tail = b"&client_id=tail"
    known = PADDING[1 : 4096 - len(tail)] + tail
    assert [way(gateway, (known,)) for _ in range(3)] == [200, 200, 429]
    assert way(gateway, (b"x=1",)) == 200
    assert [way(gateway, (b"x" + known,)) for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_the_key_is_the_same_however_the_form_is_cut(pieces: int, make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    body = b"client_id=app&scope=openid&client_id=2"
    cut = [body[at : at + -(-len(body) // pieces)] for at in range(0, len(body), -(-len(body) // pieces))]
    assert [with_length(gateway, cut) for _ in range(3)] == [200, 200, 429]
    assert with_length(gateway, [b"client_id=app"]) == 200


def test_a_slow_form_gives_nobody_back_what_is_used_up(make_gateway: Make) -> None:
    """The limit is charged when the form is here: at the time when it began the bucket was full."""
    gateway = make_gateway(settings=SETTINGS)
    slow = gateway.connect()
    slow.send(request(b"POST", TARGET, b"Content-Type: " + FORM, b"Content-Length: 13"))
    gateway.advance(25.0)
    assert [with_length(gateway, [b"client_id=app"]) for _ in range(3)] == [200, 200, 429]
    slow.send(b"client_id=app")
    assert read_messages(slow.received)[0].status == 429
    assert with_length(gateway, [b"client_id=app"]) == 429


def test_a_form_that_never_comes_charges_nobody(make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    for _ in range(5):
        client = gateway.connect()
        client.send(request(b"POST", TARGET, b"Content-Type: " + FORM, b"Content-Length: 3"))
        client.send(b"c")
    gateway.advance(31.0)
    assert [exchange.code for exchange in gateway.exchanges] == ["request_timeout"] * 5
    assert gateway.composition.policy.limiter.entries == 0


def test_other_paths_do_not_wait(make_gateway: Make) -> None:
    gateway = make_gateway(settings=SETTINGS)
    client = gateway.connect()
    client.send(request(b"POST", b"/oauth/v2/revoke", b"Content-Type: " + FORM, b"Content-Length: 3", body=b"c"))
    turns(gateway)
    assert gateway.origin("oauth2").only.received.endswith(b"\r\n\r\nc")
