"""Client certificates: who is asked in the handshake, what becomes of good and bad ones, what services get."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import socket
import ssl
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.testing import MemoryReactor
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.config import ConfigurationError, Settings, read_again
from koder_gateway.config.client_auth import Authorities, read_authorities
from koder_gateway.policy.certificates import CertificateNames
from koder_gateway.service.gateway import Gateway
from koder_gateway.tls.certificates import load_pair
from koder_gateway.tls.client_auth import client_verification
from koder_gateway.tls.contexts import ContextOptions, ServerContexts
from koder_gateway.tls.established import established
from koder_gateway.tls.handshake_failures import HandshakeFailures
from koder_gateway.tls.stream import TLSTransport
from tests.kit.authority import CLIENT, SERVER, Authority, der
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin
from tests.kit.waiting import until

ADMIN, PARTNER, OPEN = b"admin.id.test", b"a.partner.test", b"open.id.test"
PATTERNS = (("admin.id.test", "required"), ("*.partner.test", "optional"))
VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]


class Issued:
    """Certificates of every kind, each made once."""

    def __init__(self, folder):
        self.servers = Authority(folder / "servers", "Servers CA")
        self.clients = Authority(folder / "clients", "Clients CA")
        self.others = Authority(folder / "others", "Others CA")
        self.server = self.servers.issue("*.id.test", "id.test", "a.partner.test").both
        self.good = self.clients.issue_odd("good.client", use=CLIENT).both
        self.foreign = self.others.issue_odd("foreign.client", use=CLIENT).both
        # By somebody who has only taken the authority's name.
        poser = Authority(folder / "forged", "Clients CA")
        self.forged = poser.issue_odd("forged.client", use=CLIENT, posing_as=self.clients).both
        self.expired = self.clients.issue_odd("expired.client", use=CLIENT, start=-9, days=3).both
        self.future = self.clients.issue_odd("future.client", use=CLIENT, start=2).both
        self.server_only = self.clients.issue_odd("server.client", use=SERVER).both


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return Issued(tmp_path_factory.mktemp("issued"))


def make_contexts(issued, patterns=PATTERNS, authority=None):
    authorities = read_authorities((authority or issued.clients).path)
    certificate = load_pair("server", issued.server, issued.server)
    options = ContextOptions(clients=client_verification(authorities, patterns))
    return ServerContexts([certificate], options=options)


@pytest.fixture(scope="module")
def contexts(issued):
    return make_contexts(issued)


def client_context(path=None, version=0):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if path is not None:
        context.use_certificate_file(str(path))
        context.use_privatekey_file(str(path))
    return context


class Handshake:
    """One handshake to its end. `refused` is the alert that the client got, "" when it was let in."""

    def __init__(self, contexts, name, path=None, version=0, *, context=None, session=None):
        self.server = contexts.serverConnectionForTLS(None)
        self.server.set_accept_state()
        self.client = SSL.Connection(context or client_context(path, version), None)
        self.client.set_connect_state()
        if name is not None:
            self.client.set_tlsext_host_name(name)
        if session is not None:
            self.client.set_session(session)
        self.refused, self.error = "", None
        while self._step():
            pass

    def _step(self):
        for end in (self.client, self.server):
            try:
                # After its part of the handshake the client hears of the server's refusal by reading.
                end.do_handshake()
                end.recv(1 << 16)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
            except SSL.Error as error:
                if end is self.client:
                    self.refused = str(error)
                else:
                    self.error = self.error or error
        moved = False
        for source, sink in ((self.client, self.server), (self.server, self.client)):
            try:
                sink.bio_write(source.bio_read(1 << 16))
                moved = True
            except SSL.WantReadError:
                pass
        return moved

    @property
    def shown(self):
        """The certificate that the server has of the client."""
        return self.server.get_peer_certificate(as_cryptography=True)

    @property
    def resumed(self):
        return SSL._lib.SSL_session_reused(self.server._ssl) == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [ADMIN, PARTNER, b"Admin.ID.test"])
def test_a_good_certificate_is_taken(contexts, issued, name, version):
    done = Handshake(contexts, name, issued.good, version)
    assert done.refused == ""
    assert done.shown.subject.rfc4514_string() == "CN=good.client"


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_not_asked_shows_none(contexts, issued, version):
    for name in (OPEN, b"a.admin.id.test", b"partner.test", b"b.a.partner.test", None):
        done = Handshake(contexts, name, issued.good, version)
        assert (done.refused, done.shown) == ("", None)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [ADMIN, PARTNER])
@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        ("foreign", "unknown ca"),
        ("forged", "decrypt error"),
        ("expired", "certificate expired"),
        ("future", "bad certificate"),
        ("server_only", "unsupported certificate"),
    ],
)
def test_a_bad_certificate_ends_the_handshake_also_where_none_would_do(contexts, issued, name, kind, alert, version):
    done = Handshake(contexts, name, getattr(issued, kind), version)
    assert alert in done.refused.replace("_", " ")
    assert done.error is not None


@pytest.mark.parametrize(
    ("version", "alert"), [(SSL.TLS1_2_VERSION, "handshake failure"), (SSL.TLS1_3_VERSION, "certificate required")]
)
def test_none_will_not_do_where_one_is_required(contexts, version, alert):
    assert alert in Handshake(contexts, ADMIN, None, version).refused
    assert Handshake(contexts, PARTNER, None, version).refused == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_everybody_can_be_asked_also_who_names_nobody(issued, version):
    contexts = make_contexts(issued, (("*", "required"),))
    for name in (OPEN, None):
        assert Handshake(contexts, name, None, version).refused
        assert Handshake(contexts, name, issued.good, version).shown


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("with_issuer", [False, True])
def test_an_authority_counts_by_itself_also_below_another_one(issued, tmp_path, version, with_issuer):
    below = Authority(tmp_path, "Issuing CA", issuer=issued.clients)
    path = below.issue_odd("below.client", use=CLIENT).both
    context = client_context(path, version)
    if with_issuer:
        context.add_extra_chain_cert(below.certificate)
    contexts = make_contexts(issued, authority=below)
    done = Handshake(contexts, ADMIN, context=context)
    assert (done.refused, done.shown is not None) == ("", True)
    assert "unknown ca" in Handshake(contexts, ADMIN, issued.foreign, version).refused.replace("_", " ")
    assert "unknown ca" in Handshake(contexts, ADMIN, issued.good, version).refused.replace("_", " "), "one level up"


def test_clients_are_told_which_authorities_count(contexts, issued):
    done = Handshake(contexts, ADMIN, issued.good, SSL.TLS1_2_VERSION)
    assert [name.organizationalUnitName for name in done.client.get_client_ca_list()] == ["Clients CA"]


def test_every_certificate_of_the_server_asks(issued, tmp_path):
    second = issued.servers.issue("admin.id.test", path=tmp_path / "second.pem").both
    options = ContextOptions(clients=client_verification(read_authorities(issued.clients.path), PATTERNS))
    pairs = [load_pair(path.stem, path, path) for path in (issued.server, second)]
    contexts = ServerContexts(pairs, options=options)
    assert Handshake(contexts, ADMIN).refused
    assert Handshake(contexts, ADMIN, issued.foreign).refused
    done = Handshake(contexts, ADMIN, issued.good)
    shown = done.client.get_peer_certificate(as_cryptography=True)
    assert shown.public_bytes(serialization.Encoding.DER) == der(second)
    assert done.shown


# -- sessions


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", [OPEN, PARTNER, ADMIN])
@pytest.mark.parametrize("second", [OPEN, PARTNER, ADMIN])
def test_no_session_is_resumed_while_anybody_is_asked(contexts, issued, version, first, second):
    context = client_context(issued.good, version)
    before = Handshake(contexts, first, context=context)
    after = Handshake(contexts, second, context=context, session=before.client.get_session())
    assert (after.refused, after.resumed) == ("", False)
    assert (after.shown is not None) is (second != OPEN)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ticket_from_before_does_not_spare_the_certificate(issued, version):
    contexts = make_contexts(issued, ())
    context = client_context(None, version)
    before = Handshake(contexts, ADMIN, context=context)
    session = before.client.get_session()
    assert Handshake(contexts, ADMIN, context=context, session=session).resumed, "without client_auth it is resumed"
    contexts.serve(contexts.names, options=make_contexts(issued).options)
    after = Handshake(contexts, ADMIN, context=context, session=session)
    assert after.refused
    assert not after.resumed


# -- what is made of it


class Door:
    """A transport for the gateway's TLS to write to."""

    def __getattr__(self, name):
        return lambda *arguments: None


def test_what_is_established_is_that_of_the_context(contexts, issued):
    done = Handshake(contexts, PARTNER + b".", issued.good)
    transport = TLSTransport(done.server, Door())
    transport.transport = Door()
    assert (established(transport).client, established(transport).server_name) == (b"", b""), "before its end"
    transport._ready = True
    secured = established(transport)
    assert secured.client == der(issued.good)
    assert secured.authorities == read_authorities(issued.clients.path).digest
    assert secured.server_name == PARTNER
    assert secured.names.cover(b"x.id.test")
    assert secured.names is established(transport).names, "read once for each context"
    assert isinstance(secured.names, CertificateNames)


def test_a_certificate_that_others_have_asked_for_does_not_count(issued):
    theirs = SSL.Context(SSL.TLS_SERVER_METHOD)
    theirs.use_certificate_file(str(issued.server))
    theirs.use_privatekey_file(str(issued.server))
    theirs.set_verify(SSL.VERIFY_PEER, lambda *arguments: True)

    class Theirs:
        def serverConnectionForTLS(self, protocol):
            return SSL.Connection(theirs, None)

    done = Handshake(Theirs(), ADMIN, issued.foreign)
    assert done.shown is not None
    transport = TLSTransport(done.server, Door())
    transport._ready = True
    assert (established(transport).client, established(transport).authorities) == (b"", b"")


# -- the log


class Lines(list):
    """What is logged."""

    def __enter__(self):
        globalLogPublisher.addObserver(self._add)
        return self

    def __exit__(self, *error):
        globalLogPublisher.removeObserver(self._add)

    def _add(self, event):
        self.append(formatEvent(event))


class Peer:
    host = "192.0.2.1"


def test_one_line_says_why_and_how_often(contexts, issued):
    now = [0.0]
    failures = HandshakeFailures(10.0, lambda: now[0])

    def refuse(path):
        done = Handshake(contexts, ADMIN, path)
        failures.failed(done.error, done.server, b"\x16\x03\x01", b"", Peer)

    with Lines() as lines:
        for path in (issued.expired, None, issued.foreign):
            refuse(path)
        now[0] = 10.0
        refuse(None)
    assert lines == [
        "client certificate refused: certificate has expired; 192.0.2.1 asked for admin.id.test",
        (
            "client certificate refused: peer did not return a certificate; 192.0.2.1 asked for admin.id.test"
            " (2 more since the last line: 2 client_certificate)"
        ),
    ]
    assert failures.counts["client_certificate"] == sum(failures.counts.values()) == 4


# -- the file of authorities


def test_equal_settings_make_equal_options(issued):
    ours, theirs = (read_authorities(each.path) for each in (issued.clients, issued.others))
    made = client_verification(ours, PATTERNS)
    assert made == client_verification(read_authorities(issued.clients.path), PATTERNS)
    assert made != client_verification(theirs, PATTERNS)
    assert made != client_verification(ours, PATTERNS[:1])
    assert client_verification(ours, ()) is client_verification(None, PATTERNS) is None


def test_authorities_are_known_by_what_they_are(issued, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(issued.clients.path.read_bytes() + b"# a comment\n" + issued.others.path.read_bytes())
    turned = tmp_path / "turned.pem"
    turned.write_bytes(issued.others.path.read_bytes() + issued.clients.path.read_bytes() * 2)
    assert read_authorities(both).digest == read_authorities(turned).digest
    assert len({read_authorities(path).digest for path in (both, issued.clients.path, issued.others.path)}) == 3


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no certificate in it"),
        (b"\x30\x82", "no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n".encode("utf-16"), "is UTF-16 text"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "a certificate in it is not PEM that can be read",
        ),
        (b"-----BEGIN CERTIFICATE-----\n" * 60_000, "has more than 1 MiB"),
        (None, "no such file"),
    ],
)
def test_a_file_without_authorities_is_one_line(tmp_path, content, fault):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=fault) as caught:
        read_authorities(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=fault) as again:
        read_again(Authorities(path, (), b""))
    assert str(again.value).startswith(f"{path}: ")


def test_the_certificate_of_no_authority_is_refused(issued):
    with pytest.raises(ValueError, match=r'"CN=good\.client", which is not a certificate authority'):
        read_authorities(issued.good)


def test_of_an_authority_whose_clients_are_refused_there_is_a_line(issued, tmp_path):
    dates = {"Past": (-9, 3), "Soon": (-9, 30), "Future": (2, 90), "Good": (-9, 90)}
    made = {name: Authority(tmp_path, name, start=start, days=days) for name, (start, days) in dates.items()}
    path = tmp_path / "all.pem"
    path.write_bytes(b"".join(each.path.read_bytes() for each in made.values()))
    told = list(read_authorities(path).warnings(time.time()))
    assert len(told) == 3
    expected = {
        "Past": "expired on DATE, so its clients are refused; put its new certificate there",
        "Soon": "expires on DATE, in less than 30 days, and then its clients are refused;"
        " put its new certificate there",
        "Future": "is not valid before DATE, so its clients are refused; check the clock",
    }
    for name, says in expected.items():
        pattern = re.escape(f'{path}: the authority "CN={name}" {says}').replace("DATE", "[0-9-]{10}")
        assert any(re.fullmatch(pattern, line) for line in told), name


@pytest.mark.parametrize("dates", [(-9, 3), (2, 300)], ids=["past", "future"])
def test_a_certificate_of_an_authority_that_has_a_good_one_is_not_spoken_of(tmp_path, dates):
    good = Authority(tmp_path, "Twice", start=-1)
    content = good.path.read_bytes()
    other = Authority(tmp_path, "Twice", start=dates[0], days=dates[1], key=good.key)
    path = tmp_path / "both.pem"
    path.write_bytes(other.path.read_bytes() + content)
    assert list(read_authorities(path).warnings(time.time())) == []
    assert len(list(read_authorities(other.path).warnings(time.time()))) == 1


# -- a whole gateway


@pytest.fixture
def gateway(issued, tmp_path):
    """A gateway before one service, with a TLS port and a plain one."""
    received = []

    def play(peer, number):
        while (request := peer.head()) is not None:
            peer.body(request)
            request.fields += request.trailers
            received.append(request)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    shutil.copy(issued.clients.path, tmp_path / "clients.pem")
    (tmp_path / "certs").mkdir()
    shutil.copy(issued.server, tmp_path / "certs" / "default.pem")
    with Origin(play) as origin:
        text = configuration({"users": origin.url}, {"requests": {"allow_trailers": ["X-Other"]}}) + (
            '[tls.client_auth]\n"admin.id.test" = "required"\n"some.id.test" = "optional"\n'
        )
        text = text.replace("[tls]\n", '[tls]\nclient_ca = "clients.pem"\n')
        with GatewayProcess(tmp_path, text, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS)) as process:
            process.received = received
            yield process


def connect(gateway, issued, name, path=None, *, version=None):
    context = ssl.create_default_context(cafile=str(issued.servers.path))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if path is not None:
        context.load_cert_chain(str(path))
    plain = socket.create_connection(("127.0.0.1", gateway.ports[1]), 20)
    try:
        return Client(context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False))
    except BaseException:
        plain.close()
        raise


def ask(client, host, *fields):
    client.send("\r\n".join([f"GET /users HTTP/1.1\r\nHost: {host}", *fields, "", ""]).encode())
    return client.read()


SPOOFED = (
    "Client-Cert: :AAAA:",
    "client-cert: :AAAA:",
    "Client_Cert: :AAAA:",
    "Client-Cert-Chain: :AAAA:",
    "CLIENT_CERT-CHAIN: :AAAA:",
)
# Removes what the client has said, not what the gateway says.
NAMED = "Connection: Client-Cert"


def client_certs(request):
    names = (b"client-cert", b"client_cert")
    return [value.decode() for name, value in request.fields if name.lower().startswith(names)]


def test_the_service_gets_the_verified_certificate_and_no_other(gateway, issued):
    expected = f":{base64.b64encode(der(issued.good)).decode()}:"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with connect(gateway, issued, "admin.id.test", issued.good, version=version) as client:
            for fields in ((), SPOOFED, (*SPOOFED, NAMED)):
                assert ask(client, "admin.id.test", *fields).status == 200
                assert client_certs(gateway.received.pop()) == [expected]
            # The same connection, for a host that does not ask.
            assert ask(client, "open.id.test").status == 200
            assert client_certs(gateway.received.pop()) == []
    for name, path, certs in (("some.id.test", issued.good, [expected]), ("some.id.test", None, [])):
        with connect(gateway, issued, name, path) as client:
            assert ask(client, f"{name}", *SPOOFED).status == 200
            assert client_certs(gateway.received.pop()) == certs


def test_what_a_client_says_of_itself_never_passes(gateway, issued):
    trailers = b"Client-Cert: :AAAA:\r\nClient_Cert: :AAAA:\r\nClient-Cert-Chain: :AAAA:\r\n"
    for client in (gateway.connect(0), connect(gateway, issued, "open.id.test")):
        with client:
            for fields in (SPOOFED, (*SPOOFED, NAMED)):
                assert ask(client, "open.id.test", *fields).status == 200
                assert client_certs(gateway.received.pop()) == []
            client.send(b"POST /users HTTP/1.1\r\nHost: open.id.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"0\r\n" + trailers + b"X-Other: 1\r\n\r\n")
            assert client.read().status == 200
            request = gateway.received.pop()
            assert (b"X-Other", b"1") in request.fields
            assert client_certs(request) == []


def test_a_host_that_requires_one_is_not_reached_by_another_s_connection(gateway, issued):
    for client in (connect(gateway, issued, "open.id.test", issued.good), connect(gateway, issued, "some.id.test")):
        with client:
            for host in ("admin.id.test", "ADMIN.id.test.:443"):
                answer = ask(client, f"{host}")
                assert (answer.status, answer.code) == (421, "misdirected_request")
            assert ask(client, "open.id.test").status == 200, "the connection stays"
            gateway.received.pop()
    with gateway.connect(0) as plain:
        assert ask(plain, "admin.id.test").status == 421
        assert ask(plain, "some.id.test").status == 200
        gateway.received.pop()
    assert gateway.received == []


def refused(gateway, issued, name, path):
    """Whether a client is let in: in TLS 1.3 it hears of it when it reads."""
    try:
        with connect(gateway, issued, name, path) as client:
            return ask(client, f"{name}").status != 200
    except (ssl.SSLError, ConnectionError):
        return True


def test_refusals_are_told_in_few_lines_and_hurt_nobody(gateway, issued):
    with connect(gateway, issued, "admin.id.test", issued.good) as before:
        for path in (None, issued.foreign, issued.expired) * 5:
            assert refused(gateway, issued, "admin.id.test", path)
        assert ask(before, "admin.id.test").status == 200
    told = [line for line in gateway.log().splitlines() if "client certificate refused" in line]
    assert len(told) == 1
    assert "peer did not return a certificate; 127.0.0.1 asked for admin.id.test" in told[0]


def reload(gateway, outcome):
    before = gateway.metrics()[f'koder_gateway_reloads_total{{result="{outcome}"}}']
    gateway.signal(signal.SIGHUP)
    until(
        lambda: gateway.metrics()[f'koder_gateway_reloads_total{{result="{outcome}"}}'] > before,
        f"a reload: {outcome}",
    )


def test_an_authority_that_has_expired_is_told_at_a_reload(gateway, issued):
    expired = Authority(gateway.folder / "expired", "Old CA", start=-9, days=3)
    shutil.copy(expired.path, gateway.folder / "clients.pem")
    reload(gateway, "ok")
    assert 'clients.pem: the authority "CN=Old CA" expired on ' in gateway.log()


def test_a_reload_reads_the_authorities_again(gateway, issued):
    ca = gateway.folder / "clients.pem"
    with connect(gateway, issued, "admin.id.test", issued.good) as before:
        assert ask(before, "admin.id.test").status == 200
        ca.write_bytes(b"broken")
        reload(gateway, "failed")
        assert 'tls.client_ca: "clients.pem": no certificate in it' in gateway.log()
        assert ask(before, "admin.id.test").status == 200
        shutil.copy(issued.others.path, ca)
        reload(gateway, "ok")
        # Who was verified by the authorities of before is not any more.
        assert ask(before, "admin.id.test").status == 421
        assert ask(before, "open.id.test").status == 200
    assert refused(gateway, issued, "admin.id.test", issued.good)
    assert not refused(gateway, issued, "admin.id.test", issued.foreign)


def test_settings_of_no_file_have_their_authorities_read_again(issued, tmp_path):
    ca = tmp_path / "ca.pem"
    shutil.copy(issued.clients.path, ca)
    tls = replace(Settings().tls, client_ca=read_authorities(ca), client_auth=PATTERNS)
    state = replace(Settings().state, dir=tmp_path)
    gateway = Gateway(replace(Settings(), tls=tls, state=state), ports=(), reactor=MemoryReactor())

    def digest():
        return gateway.composition.policy.client_auth.digest

    before = digest()
    shutil.copy(issued.others.path, ca)
    assert gateway.reload()
    assert digest() == read_authorities(issued.others.path).digest != before
    ca.unlink()
    assert not gateway.reload()
    assert digest() == read_authorities(issued.others.path).digest


def test_a_certificate_beyond_the_bound_is_a_refusal(gateway, issued):
    large = issued.clients.issue_odd("large.client", use=CLIENT, padding=13_000).both
    with connect(gateway, issued, "admin.id.test", large) as client:
        answer = ask(client, "admin.id.test")
        assert (answer.status, answer.code) == (431, "head_too_large")
    assert gateway.received == []
