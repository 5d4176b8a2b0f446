"""HSTS is for TLS alone, whoever says it (RFC 6797 section 7.2): services, mounted resources, the gateway itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Site

from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.doors import Doors, open_doors, plain
from tests.kit.http1 import read_messages
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, in_frames
from tests.kit.memory import MemoryGateway, request, settings_with
from tests.kit.recording import HOST, SETTINGS, connect
from tests.kit.recording import request as bytes_of

FIELD = b"strict-transport-security"
SAID = b"max-age=1; includeSubDomains"
LINE = b"Strict-Transport-Security: %b\r\n" % SAID
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n%b\r\n" % LINE
FINAL = b"HTTP/1.1 200 OK\r\n%bX-Kept: kept\r\nContent-Length: 0\r\n\r\n" % LINE


@pytest.fixture(scope="module", params=[True, False], ids=["hsts", "no hsts"])
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS if request.param else SETTINGS + "[tls]\nhsts = false\n"
    further = ("tcp:0:interface=127.0.0.1",)
    with open_doors(tmp_path_factory.mktemp("gateway"), settings, further=further) as doors:
        doors.origin.answers[b"/v1/users/hsts"] = HINT + FINAL
        yield doors


@pytest.fixture
def ours(doors: Doors, request: pytest.FixtureRequest) -> bytes:
    """What is said over TLS."""
    return b"max-age=31536000" if request.node.callspec.params["doors"] else SAID


def test_on_a_plain_port_a_service_s_own_is_dropped(doors: Doors) -> None:
    with connect(doors.ports[2]) as client:
        client.send(bytes_of(b"/v1/users/hsts"))
        answer = client.answer()
    assert (answer.status, answer.values(b"x-kept"), answer.values(FIELD)) == (200, [b"kept"], [])
    assert [(hint.status, hint.names()) for hint in answer.interim] == [(103, [b"link"])]


def test_in_a_plain_site_a_service_s_own_is_dropped(doors: Doors) -> None:
    answer = doors.ask("stock", b"/v1/users/hsts")
    assert (answer.status, answer.values(b"x-kept"), answer.values(FIELD)) == (200, [b"kept"], [])


def test_over_tls_a_service_s_own_passes_where_the_gateway_has_none(doors: Doors, ours: bytes) -> None:
    with connect(doors.ports[0], secure=True) as client:
        client.send(bytes_of(b"/v1/users/hsts"))
        answer = plain(client.answer())
    assert answer.values(FIELD) == [ours]
    head = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/v1/users/hsts"), (b":authority", HOST)]
    with Http2Client.connect(doors.ports[0], HOST) as client:
        client.start()
        client.send(in_frames(1, block(head), end=True))
        assert [value for name, value in client.answer(1).fields if name == FIELD] == [ours]


class Own(Resource):
    """Says what is the gateway's to say, by either way."""

    isLeaf = True

    def render_GET(self, request):
        request.setHeader(b"Strict-Transport-Security", SAID)
        request.responseHeaders.addRawHeader("Access-Control-Allow-Origin", "*")
        request.setHeader("X-Request-ID", "evil")
        request.setHeader(b"X-Kept", b"kept")
        return b""


@pytest.mark.parametrize("hsts", ["max-age=2", ""])
@pytest.mark.parametrize("secure", [True, False], ids=["TLS", "plain"])
@pytest.mark.parametrize("stock", [True, False], ids=["stock", "own"])
def test_what_a_mounted_resource_says_of_it(hsts: str, secure: bool, stock: bool) -> None:
    made = MemoryGateway(settings_with(tls={"hsts": hsts}), mounts={b"/own": Own()})
    if stock:
        composition = made.composition
        clock = made.reactor.seconds
        entrance = SiteAdapter(composition.resource, composition.policy, composition.reader, made.finished, clock)
        made.site = Site(entrance, reactor=made.reactor, parsePOSTFormSubmission=False)
    client = made.connect(secure=secure)
    client.send(request(b"GET", b"/own"))
    (message,) = read_messages(client.take())
    assert message.values(FIELD) == ([hsts.encode() or SAID] if secure else [])
    assert (message.values(b"x-kept"), message.values(b"access-control-allow-origin")) == ([b"kept"], [])
    assert b"evil" not in message.values(b"x-request-id")
    client.reset()
