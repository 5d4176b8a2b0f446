"""Endpoint strings: which kind each becomes, what is said of bad ones, and clients that really connect."""

from __future__ import annotations

import errno
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.testing import MemoryReactor
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.listening.both_families import BothFamiliesEndpoint
from koder_gateway.listening.endpoint_faults import EndpointError
from koder_gateway.listening.endpoint_strings import BACKLOG, EndpointString, parse
from koder_gateway.listening.endpoints import Endpoints, server_endpoint
from koder_gateway.tls.certificates import DAY, self_signed
from koder_gateway.tls.factory import TLSFactory
from koder_gateway.tls.sni_callback import UNRECOGNIZED_NAME
from tests.kit.certificates import NOW, certificate_pem, key_pem
from tests.tls.test_contexts import alert_of


@dataclass(frozen=True)
class Tls:
    """The `[tls]` settings."""

    certificates: Path | None = None
    default: str = ""
    strict_sni: bool = False
    client_ca: object = None
    client_auth: tuple = ()


class Greeter(Protocol):
    """Says from where it thinks that the client came, and over what."""

    def connectionMade(self):
        self.transport.write(getattr(self.transport.getPeer(), "host", "socket").encode())
        self.transport.loseConnection()


class Listener(Protocol):
    """Keeps all that it hears until the other side closes."""

    def __init__(self):
        self.heard = b""
        self.done = Deferred()

    def dataReceived(self, data):
        self.heard += data

    def connectionLost(self, reason):
        self.done.callback(self.heard)


@pytest.fixture
def events():
    """What is logged as a warning or worse, as text."""
    seen = []

    def observe(event):
        if event["log_level"].name in ("warn", "error", "critical"):
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def endpoints(tmp_path):
    return Endpoints(reactor, Tls(), tmp_path / "state", "id.localhost")


async def listen(endpoint):
    factory = Factory.forProtocol(Greeter)
    factory.noisy = False
    return await endpoint.listen(factory)


async def greet(port, name=None, trust=None):
    """What a client hears that connects to a port, by TLS for `name` when that is given."""
    client = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    if name is not None:
        client = wrapClientTLS(optionsForClientTLS(name, trustRoot=trust), client)
    protocol = await connectProtocol(client, Listener())
    return await protocol.done


def certificate_of(path):
    return Certificate.loadPEM(path.read_bytes())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "text", ["ssl:0:interface=127.0.0.1", "tls:0:interface=127.0.0.1", "SSL:0:interface=127.0.0.1"]
)
async def test_without_a_certificate_a_self_signed_one_serves(endpoints, events, tmp_path, text):
    endpoint, secure = endpoints.server(text)
    assert secure
    path = tmp_path / "state" / "self-signed-id.localhost.pem"
    port = await listen(endpoint)
    try:
        assert await greet(port, "acme.id.localhost", certificate_of(path)) == b"127.0.0.1"
    finally:
        await port.stopListening()
    (event,) = events
    assert self_signed(path.parent, "id.localhost").fingerprint in event
    assert endpoints.expiries() == {"id.localhost": self_signed(path.parent, "id.localhost").expires}


@pytest_twisted.ensureDeferred
async def test_the_configured_certificates_serve_by_name(tmp_path, events):
    made = [self_signed(tmp_path / "made", domain) for domain in ("a.example", "b.example")]
    folder = tmp_path / "certs"
    folder.mkdir()
    for certificate in made:
        shutil.copy(certificate.path, folder / f"{certificate.name}.pem")
    endpoint, secure = server_endpoint(
        reactor, "ssl:0:interface=127.0.0.1", Tls(folder, "b.example"), tmp_path / "state", "id.localhost"
    )
    assert secure
    port = await listen(endpoint)
    try:
        for certificate in made:
            trust = certificate_of(certificate.path)
            assert await greet(port, f"x.{certificate.name}", trust) == b"127.0.0.1"
    finally:
        await port.stopListening()
    assert events == []
    assert not (tmp_path / "state").exists()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "template",
    [
        "ssl:0:privateKey={pem}:interface=127.0.0.1",
        "ssl:0:{pem}:{pem}:interface=127.0.0.1",
        "ssl:port=0:certKey={pem}:privateKey={pem}:interface=127.0.0.1:backlog=5:sslmethod=TLSv1_2_METHOD",
        "ssl:0:privateKey={pem}:extraCertChain={pem}:interface=127.0.0.1:sslmethod=TLS_METHOD",
        "tls:{folder}:0:interface=127.0.0.1",
    ],
)
async def test_an_endpoint_names_its_own_certificate(endpoints, tmp_path, template):
    made = self_signed(tmp_path / "with: colon", "a.example")
    quoted = {
        "pem": str(made.path).replace(":", "\\:"),
        "folder": str(made.path.parent).replace(":", "\\:"),
    }
    endpoint, secure = endpoints.server(template.format(**quoted))
    assert secure
    port = await listen(endpoint)
    try:
        assert await greet(port, "www.a.example", certificate_of(made.path)) == b"127.0.0.1"
    finally:
        await port.stopListening()
    assert not (tmp_path / "state").exists()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("text", "secure"), [("tcp:0:interface=127.0.0.1", False), ("tcp:0:127.0.0.1:7", False)])
async def test_a_plain_endpoint_is_twisted_s_own(endpoints, text, secure):
    endpoint, is_secure = endpoints.server(text)
    assert is_secure is secure
    port = await listen(endpoint)
    try:
        assert await greet(port) == b"127.0.0.1"
    finally:
        await port.stopListening()


class Answerer(Protocol):
    """Answers the first bytes with where it thinks that they come from."""

    def dataReceived(self, data):
        self.transport.write(self.transport.getPeer().host.encode())
        self.transport.loseConnection()


class Balancer(Listener):
    """Sends a PROXY header, then a request, between them a TLS handshake if there are `options` for one."""

    def __init__(self, options):
        super().__init__()
        self.options = options

    def connectionMade(self):
        self.transport.write(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n")
        if self.options is not None:
            self.transport.startTLS(self.options)
        self.transport.write(b"anything")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["tcp", "ssl", "tls", "tls+tcp"])
async def test_the_proxy_header_comes_before_everything_else(endpoints, tmp_path, kind):
    endpoint, secure = endpoints.server(f"haproxy:{kind}:0:interface=127.0.0.1")
    assert secure is (kind != "tcp")
    factory = Factory.forProtocol(Answerer)
    factory.noisy = False
    port = await endpoint.listen(factory)
    options = None
    if secure:
        trust = certificate_of(tmp_path / "state" / "self-signed-id.localhost.pem")
        options = optionsForClientTLS("acme.id.localhost", trustRoot=trust)
    try:
        client = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        balancer = await connectProtocol(client, Balancer(options))
        assert await balancer.done == b"192.0.2.7"
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("own", ["", ":privateKey={pem}:sslmethod=TLSv1_2_METHOD"])
@pytest.mark.parametrize("kind", ["tcp:0:interface=127.0.0.1", "unix:{folder}/door:mode=600"])
async def test_tls_over_another_kind(endpoints, tmp_path, kind, own):
    made = self_signed(tmp_path / "own", "a.example")
    text = f"tls+{kind}{own}".format(folder=tmp_path, pem=made.path)
    endpoint, secure = endpoints.server(text)
    assert secure
    port = await listen(endpoint)
    name, path = (
        ("a.example", made.path) if own else ("id.localhost", tmp_path / "state/self-signed-id.localhost.pem")
    )
    try:
        if kind.startswith("unix"):
            assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600
            client = UNIXClientEndpoint(reactor, str(tmp_path / "door"))
        else:
            client = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        secure_client = wrapClientTLS(optionsForClientTLS(name, trustRoot=certificate_of(path)), client)
        heard = await (await connectProtocol(secure_client, Listener())).done
        assert heard == (b"127.0.0.1" if kind.startswith("tcp") else b"socket")
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_keeps_its_mode(endpoints, tmp_path):
    endpoint, secure = endpoints.server(f"unix:{tmp_path}/door:mode=600")
    assert not secure
    factory = Factory.forProtocol(Answerer)
    factory.noisy = False
    port = await endpoint.listen(factory)
    try:
        assert (tmp_path / "door").stat().st_mode & 0o777 == 0o600
    finally:
        await port.stopListening()
    assert not (tmp_path / "door").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no such kind"),
        ("443", "no such kind"),
        ("=443", "no such kind"),
        ("gopher:70", "no such kind"),
        ("ssl:", "names no port"),
        ("ssl", "names no port"),
        ("tcp:", "names no port"),
        ("ssl:https", 'port "https" is not a number'),
        ("tcp:65536", 'port "65536" is not a number from 0 to 65535'),
        ("tcp6:-1", 'port "-1" is not a number'),
        ("ssl:443:backlog=many", 'backlog "many" is not a number'),
        ("ssl:443:privatKey=x", "unknown argument privatKey; known are port, privateKey"),
        ("ssl:443:sslmethod=TLSv1_METHOD", "only TLS 1.2 and newer"),
        ("ssl:443:sslmethod=TLS_METHOD", "sslmethod needs privateKey and certKey"),
        ("ssl:443:privateKey=/nowhere/key.pem", "/nowhere/key.pem: no such file or directory"),
        ("ssl:1:2:3:4:5:6:7:8:9", "too many arguments"),
        ("tls:/nowhere:443", "/nowhere: no such file or directory"),
        ("tcp:80:colour=red", "wrong arguments for this kind of endpoint"),
        ("tcp6:80:backlog=z", "wrong arguments for this kind of endpoint"),
        ("unix:", "names no path"),
        ("unix:/tmp/x:mode=rw", "wrong arguments for this kind of endpoint"),
        ("systemd:domain=INET:name=http", "no descriptor called 'http' was inherited"),
        ("systemd:domain=INET:index=7", "no descriptor of that index was inherited"),
        ("systemd:domain=INET", "Specify exactly one"),
        ("haproxy:", "no such kind"),
        ("tls+:", "no such kind"),
        ("tls+gopher:70", "no such kind"),
        ("tls+tcp:x", 'port "x" is not a number'),
        ("tls+ssl:443", "must precede a plain endpoint"),
        ("tls+haproxy:tcp:443", "must precede a plain endpoint"),
        ("tls+tls+tcp:443", "must precede a plain endpoint"),
        ("tls+systemd:domain=INET:index=7", "no descriptor of that index was inherited"),
        ("tls+tcp:443:privateKey=/nowhere/key.pem", "/nowhere/key.pem: no such file or directory"),
        ("tls+tcp:443:extraCertChain=x", "extraCertChain needs privateKey"),
        ("haproxy:ssl:x", 'port "x" is not a number'),
    ],
)
def test_a_bad_string_is_one_clear_line_that_names_it(endpoints, text, words):
    with pytest.raises(EndpointError) as caught:
        endpoints.server(text)
    assert str(caught.value).startswith(f'endpoint "{text}": ')
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_broken_certificate_has_its_line(tmp_path):
    certs = tmp_path / "certs"
    certs.mkdir()
    for name in ("a.pem", "b.pem"):
        (certs / name).write_text("scribble")
    with pytest.raises(EndpointError) as caught:
        Endpoints(reactor, Tls(certs), tmp_path, "id.localhost").server("ssl:443")
    lines = str(caught.value).splitlines()
    assert [line.partition(": no ")[0] for line in lines] == [
        f'endpoint "ssl:443": {certs / name}' for name in ("a.pem", "b.pem")
    ]


def test_a_key_that_is_not_the_certificate_s_is_named(endpoints, tmp_path):
    one, other = self_signed(tmp_path / "x", "a.example"), self_signed(tmp_path / "x", "b.example")
    with pytest.raises(EndpointError, match="does not match its first certificate") as caught:
        endpoints.server(f"ssl:443:privateKey={one.path}:certKey={other.path}")
    assert str(one.path) in str(caught.value)


def test_an_unusable_state_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EndpointError, match=r"state\.dir"):
        server_endpoint(reactor, "ssl:443", Tls(), tmp_path / "file", "id.localhost")


def test_clients_of_unknown_names_are_mentioned_once_when_nobody_chose(tmp_path, events):
    for domain in ("b.example", "a.example"):
        self_signed(tmp_path, domain)
    endpoints = Endpoints(reactor, Tls(tmp_path), tmp_path / "state", "id.localhost")
    endpoints.server("ssl:443")
    endpoints.server("ssl:8443")
    (event,) = events
    assert "get self-signed-a.example; set tls.default" in event


def secure_ports(memory):
    """The contexts of each port that speaks TLS."""
    return [factory.contexts for _, factory, *_ in memory.tcpServers if isinstance(factory, TLSFactory)]


def test_an_extra_chain_follows_the_certificate(tmp_path):
    memory = MemoryReactor()
    one, other = self_signed(tmp_path, "a.example"), self_signed(tmp_path, "b.example")
    text = f"ssl:443:privateKey={one.path}:extraCertChain={other.path}"
    server_endpoint(memory, text, Tls(), tmp_path, "id.localhost")[0].listen(Factory())
    (served_one,) = secure_ports(memory)[0].certificates
    assert served_one.chain == (one.leaf, other.leaf)


def test_diffie_hellman_parameters_are_not_used_and_that_is_said(endpoints, tmp_path, events):
    made = self_signed(tmp_path, "a.example")
    endpoints.server(f"ssl:443:privateKey={made.path}:dhParameters=/some/dh.pem")
    assert "dhParameters is not used" in events[0]


def test_the_backlog_is_the_gateway_s_where_none_is_named(tmp_path):
    memory = MemoryReactor()
    endpoints = Endpoints(memory, Tls(), tmp_path, "id.localhost")
    for text in (
        "tcp:80",
        "tcp:80:backlog=9",
        "tcp:80:127.0.0.1:9",
        "ssl:443",
        "ssl:443:backlog=9",
        f"unix:{tmp_path}/x",
    ):
        endpoints.server(text)[0].listen(Factory())
    assert [server[2] for server in memory.tcpServers] == [BACKLOG, 9, 9, BACKLOG, 9]
    assert [server[2] for server in memory.unixServers] == [BACKLOG]


def test_endpoints_without_a_key_of_their_own_share_their_contexts(tmp_path):
    memory = MemoryReactor()
    endpoints = Endpoints(memory, Tls(), tmp_path, "id.localhost")
    made = self_signed(tmp_path / "own", "a.example")
    for text in ("ssl:443", "tls:8443", f"ssl:444:privateKey={made.path}"):
        endpoints.server(text)[0].listen(Factory())
    shared, also, own = secure_ports(memory)
    assert shared is also
    assert own is not shared
    assert endpoints.expiries().keys() == {"id.localhost", made.path.stem}


def test_of_certificates_with_one_name_the_first_to_expire_is_told(tmp_path):
    endpoints = Endpoints(MemoryReactor(), Tls(), tmp_path, "id.localhost")
    for name, days in (("long", 80), ("short", 40), ("middle", 60)):
        path = tmp_path / name / "fullchain.pem"
        path.parent.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key_pem(key) + certificate_pem(key, f"{name}.example", start=NOW, days=days))
        endpoints.server(f"ssl:443:privateKey={path}")
    assert endpoints.expiries() == {"fullchain": NOW + 40 * DAY}


def served(contexts):
    return [certificate.name for certificate in contexts.certificates]


def test_a_reload_serves_what_is_there_now_and_keeps_what_is_broken(tmp_path, events):
    memory = MemoryReactor()
    folder = tmp_path / "certs"
    own = self_signed(tmp_path / "own", "own.example").path
    renewed = self_signed(tmp_path / "renewed", "own.example").path
    self_signed(folder, "a.example")
    endpoints = Endpoints(memory, Tls(folder), tmp_path, "id.localhost")
    for text in ("ssl:443", f"ssl:444:privateKey={own}"):
        endpoints.server(text)[0].listen(Factory())
    shared, named = secure_ports(memory)
    before = named.getContext()

    self_signed(folder, "b.example")
    endpoints.reload(Tls(folder))
    assert served(shared) == ["self-signed-a.example", "self-signed-b.example"]
    assert named.getContext() is before, "nothing has changed there"
    shutil.copy(renewed, own)
    endpoints.reload(Tls(folder))
    assert named.getContext() is not before
    assert events == []

    (folder / "c.pem").write_text("scribble")
    (folder / "self-signed-a.example.pem").write_text("scribble")
    own.write_text("scribble")
    self_signed(folder, "d.example")
    before = named.getContext()
    endpoints.reload(Tls(folder))
    assert served(shared) == ["self-signed-a.example", "self-signed-b.example", "self-signed-d.example"]
    assert named.getContext() is before
    assert endpoints.faulty == 3
    assert sorted(events) == [
        f"{folder}/c.pem: no certificate in it; it must be PEM, with BEGIN CERTIFICATE lines",
        (
            f"{folder}/self-signed-a.example.pem: no certificate in it; it must be PEM, with BEGIN"
            " CERTIFICATE lines; the previous one stays"
        ),
        (
            f'endpoint "ssl:444:privateKey={own}": {own}: no certificate in it; it must be PEM, with BEGIN'
            " CERTIFICATE lines; the previous one stays"
        ),
    ]


def test_a_reload_can_change_the_base_domain(tmp_path):
    memory = MemoryReactor()
    endpoints = Endpoints(memory, Tls(), tmp_path, "one.example")
    endpoints.server("ssl:443")[0].listen(Factory())
    endpoints.reload(Tls(), "two.example")
    assert served(secure_ports(memory)[0]) == ["two.example"]
    endpoints.reload(Tls())
    assert served(secure_ports(memory)[0]) == ["two.example"]


words = st.text(min_size=1, max_size=12)


@given(
    st.lists(words, max_size=3),
    st.dictionaries(words.filter(lambda name: not set(name) & set(":=\\")), words, max_size=3),
)
def test_a_description_survives_being_written_and_read(arguments, options):
    # An argument with `=` in it would be read as a named one; Twisted's quoting has the same gap.
    arguments = tuple(argument.replace("=", "-") for argument in arguments)
    description = EndpointString("kind", arguments, options)
    assert parse(description.text()) == description


def test_a_value_may_have_an_equals_sign_and_quoted_colons():
    assert parse(r"ssl:443:privateKey=/a=b\:c\\d") == EndpointString("ssl", ("443",), {"privateKey": "/a=b:c\\d"})


@given(st.text(max_size=40))
def test_any_string_is_an_endpoint_or_an_error(tmp_path_factory, text):
    endpoints = Endpoints(MemoryReactor(), Tls(), tmp_path_factory.getbasetemp() / "state", "id.localhost")
    # Any other exception fails this test.
    with suppress(EndpointError):
        assert endpoints.server(text)[1] in (True, False)


def test_strictness_is_that_of_the_settings_for_every_endpoint(tmp_path, events):
    memory = MemoryReactor()
    folder, own = tmp_path / "certs", self_signed(tmp_path / "own", "own.example").path
    self_signed(folder, "a.example")
    self_signed(folder, "b.example")
    endpoints = Endpoints(memory, Tls(folder, strict_sni=True), tmp_path, "id.localhost")
    for text in ("ssl:443", f"tls+tcp:444:privateKey={own}"):
        endpoints.server(text)[0].listen(Factory())
    for contexts in secure_ports(memory):
        assert alert_of(contexts, name=b"unknown.test") == UNRECOGNIZED_NAME
    assert events == [], "nobody gets the default one"
    endpoints.reload(Tls(folder))
    for contexts in secure_ports(memory):
        assert alert_of(contexts, name=b"unknown.test") is None


def test_a_reload_can_change_the_folder_and_the_default(tmp_path, events):
    memory = MemoryReactor()
    one, other = tmp_path / "one", tmp_path / "other"
    self_signed(one, "a.example")
    self_signed(other, "b.example")
    self_signed(other, "c.example")
    endpoints = Endpoints(memory, Tls(one), tmp_path, "id.localhost")
    endpoints.server("ssl:443")[0].listen(Factory())
    (contexts,) = secure_ports(memory)
    endpoints.reload(Tls(other, "self-signed-c.example"))
    assert served(contexts) == ["self-signed-b.example", "self-signed-c.example"]
    assert contexts.names.default.name == "self-signed-c.example"
    endpoints.reload(Tls(tmp_path / "nowhere"))
    assert served(contexts) == ["self-signed-b.example", "self-signed-c.example"]
    (event,) = events
    assert event.startswith(f"{tmp_path}/nowhere: no such file or directory; ")
    endpoints.reload(Tls())
    assert served(contexts) == ["id.localhost"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("text", "secure"),
    [
        (":0", True),
        ("https://:0", True),
        ("ssl:0", True),
        ("tls+tcp:0", True),
        ("http://:0", False),
        ("tcp:0", False),
        ("haproxy:tcp:0", False),
    ],
)
async def test_a_bare_port_listens_for_both_families(endpoints, events, text, secure):
    endpoint, over_tls = endpoints.server(text)
    assert over_tls is secure
    port = await listen(endpoint)
    try:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port.getHost().port), 20).close()
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("text", "host", "secure"),
    [
        ("127.0.0.1:0", "127.0.0.1", True),
        ("[::1]:0", "::1", True),
        ("http://127.0.0.1:0", "127.0.0.1", False),
        ("http://[::1]:0", "::1", False),
        ("haproxy:http://127.0.0.1:0", "127.0.0.1", False),
    ],
)
async def test_an_address_and_a_port_are_an_endpoint(endpoints, events, text, host, secure):
    endpoint, over_tls = endpoints.server(text)
    assert over_tls is secure
    port = await listen(endpoint)
    try:
        assert port.getHost().host == host
    finally:
        await port.stopListening()


def test_where_clients_speak_no_tls_a_port_alone_is_plain(endpoints):
    endpoints.plain(":0")
    endpoints.plain("127.0.0.1:0")
    for text in ("https://:0", "ssl:0", "haproxy:ssl:0"):
        with pytest.raises(EndpointError, match="speaks TLS"):
            endpoints.plain(text)


class WithoutIPv6(MemoryReactor):
    """A system that cannot listen on IPv6, or whose port is taken."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def listenTCP(self, port, factory, backlog=50, interface=""):
        if interface == "::":
            raise CannotListenError(interface, port, OSError(self.number, "no"))
        return super().listenTCP(port, factory, backlog, interface)


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EADDRINUSE])
def test_without_ipv6_a_bare_port_is_ipv4_s(number):
    system = WithoutIPv6(number)
    faults = []
    BothFamiliesEndpoint(system, 443, 7).listen(Factory()).addErrback(faults.append)
    if number == errno.EADDRINUSE:
        assert faults[0].check(CannotListenError)
        assert not system.tcpServers
    else:
        assert not faults
        assert [(port, backlog, interface) for port, _, backlog, interface in system.tcpServers] == [(443, 7, "")]
