"""What TLS has established, through every kind of transport: the gateway's, Twisted's, a Site of somebody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import directlyProvides

from koder_gateway.config.client_auth import read_authorities
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.tenants import Tenant
from koder_gateway.tls.certificates import load_pair
from koder_gateway.tls.client_auth import client_verification
from koder_gateway.tls.contexts import ContextOptions, ServerContexts
from koder_gateway.tls.established import established
from koder_gateway.tls.factory import TLSFactory
from koder_gateway.twisted_site.adapter import SiteAdapter
from tests.kit.authority import CLIENT, Authority, der
from tests.kit.http1 import read_messages
from tests.kit.memory import MemoryGateway, join, request, settings_with

TENANTS = (Tenant("koder", domains=("login.koder.example",)), Tenant("acme"))
PATTERNS = (("login.koder.example", "optional"),)


class Issued:
    """A server's certificate, with the contexts that serve it, and a client's."""

    def __init__(self, folder):
        self.authority = Authority(folder)
        self.server = self.authority.issue("login.koder.example", "*.wild.example").both
        self.client = self.authority.issue_odd("a.client", use=CLIENT).both
        self.clients = client_verification(read_authorities(self.authority.path), PATTERNS)

    def contexts(self):
        pair = load_pair("server", self.server, self.server)
        return ServerContexts([pair], options=ContextOptions(clients=self.clients))


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return Issued(tmp_path_factory.mktemp("issued"))


class Client:
    """OpenSSL's client in memory, before the protocol of a factory."""

    def __init__(self, clock, factory, name, certificate=None):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if certificate is not None:
            context.use_certificate_file(str(certificate))
            context.use_privatekey_file(str(certificate))
        self.clock = clock
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(name)
        self.tls.set_connect_state()
        self.heard = b""
        self.wire = join(clock, factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 50000)), peer="192.0.2.1")
        self.pump()

    def pump(self):
        """Carry everything that either side has to say."""
        while True:
            try:
                self.tls.do_handshake()
                while True:
                    self.heard += self.tls.recv(1 << 16)
            except SSL.WantReadError:
                pass
            sent = True
            try:
                self.wire.send(self.tls.bio_read(1 << 16))
            except SSL.WantReadError:
                sent = False
            # Twisted's own writes in the next turn.
            self.clock.advance(0)
            if not sent and not self.wire.received:
                return
            arrived, self.wire.received = self.wire.received, b""
            if arrived:
                self.tls.bio_write(arrived)

    def ask(self, host):
        """The answer to a request for a host."""
        self.heard = b""
        self.tls.send(request(b"GET", b"/nowhere", host=host))
        self.pump()
        (message,) = read_messages(self.heard)
        return message


KINDS = {
    "the gateway's": lambda contexts, inner, clock: TLSFactory(contexts, inner),
    "Twisted's": lambda contexts, inner, clock: TLSMemoryBIOFactory(contexts, False, inner, clock),
}


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def gateway(issued):
    settings = settings_with()
    authorities = read_authorities(issued.authority.path)
    tls = replace(settings.tls, client_ca=authorities, client_auth=PATTERNS)
    made = MemoryGateway(replace(settings, tls=tls), tenants=TENANTS)
    made.site.secured = established
    yield made
    for client in made.clients:
        client.reset()


def test_what_a_transport_tells(issued, kind, gateway):
    made = []

    class Inner(Protocol):
        def connectionMade(self):
            made.append(self.transport)

    factory = kind(issued.contexts(), Factory.forProtocol(Inner), gateway.reactor)
    client = Client(gateway.reactor, factory, b"Login.Koder.example", issued.client)
    gateway.clients.append(client.wire)
    secured = established(made[0])
    assert secured.names.cover(b"login.koder.example")
    assert secured.names.cover(b"a.wild.example")
    assert not secured.names.cover(b"wild.example")
    assert secured.server_name == b"login.koder.example"
    assert (secured.client, secured.authorities) == (
        der(issued.client),
        read_authorities(issued.authority.path).digest,
    )


def test_in_the_gateway_s_own_site(issued, kind, gateway):
    client = Client(gateway.reactor, kind(issued.contexts(), gateway.site, gateway.reactor), b"login.koder.example")
    gateway.clients.append(client.wire)
    assert_misdirected(client)


def test_in_a_stock_site(issued, kind, gateway):
    composition = gateway.composition
    entrance = SiteAdapter(
        composition.resource,
        composition.policy,
        composition.reader,
        gateway.finished,
        gateway.reactor.seconds,
        established,
    )
    site = Site(entrance, reactor=gateway.reactor, parsePOSTFormSubmission=False)
    client = Client(gateway.reactor, kind(issued.contexts(), site, gateway.reactor), b"login.koder.example")
    gateway.clients.append(client.wire)
    assert_misdirected(client)


def assert_misdirected(client):
    answers = [client.ask(host) for host in (b"login.koder.example", b"acme.id.koder.dev", b"koder.id.koder.dev")]
    assert [(answer.status, answer.code) for answer in answers] == [
        (404, "no_route"),
        (421, "misdirected_request"),
        (404, "no_route"),
    ]
    assert all(answer.one(b"strict-transport-security") == b"max-age=31536000" for answer in answers)


class Own(Resource):
    """Says itself for how long browsers are to keep to TLS."""

    isLeaf = True

    def render_GET(self, request):
        request.setHeader(b"Strict-Transport-Security", b"max-age=1")
        return b""


@pytest.mark.parametrize("hsts", ["max-age=2", ""])
@pytest.mark.parametrize("secure", [True, False], ids=["TLS", "plain"])
def test_a_mounted_resource_s_own_hsts_gives_way_as_a_service_s_does(hsts, secure):
    made = MemoryGateway(settings_with(tls={"hsts": hsts}), mounts={b"/own": Own()})
    client = made.connect(secure=secure)
    client.send(request(b"GET", b"/own"))
    (message,) = read_messages(client.take())
    assert message.values(b"strict-transport-security") == ([hsts.encode() or b"max-age=1"] if secure else [])
    client.reset()


def test_a_plain_transport_has_none(gateway):
    plain, secure = gateway.connect(), gateway.connect(secure=True)
    assert plain is not secure
    assert [established(channel.transport) is None for channel in gateway.site.channels].count(True) == 1


def test_a_transport_that_says_nothing_is_only_secure(gateway):
    gateway.connect(secure=True)
    (channel,) = gateway.site.channels
    secured = established(channel.transport)
    assert isinstance(secured, TlsInfo)
    assert (secured.client, secured.server_name, secured.names.cover(b"a")) == (b"", b"", False)


def test_names_end_with_their_context(issued):
    contexts = issued.contexts()

    class Transport:
        tls_connection = contexts.serverConnectionForTLS(None)

    transport = Transport()
    directlyProvides(transport, ISSLTransport)
    before = established(transport).names
    assert established(transport).names is before
    contexts.rotate()
    transport.tls_connection = contexts.serverConnectionForTLS(None)
    assert established(transport).names is not before
