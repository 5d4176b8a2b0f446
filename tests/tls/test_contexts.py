"""Contexts: what a client may negotiate, which certificate it gets, what is refused; all through memory."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from koder_gateway.tls import client_hello
from koder_gateway.tls.certificates import CertificateError, load_pair, self_signed
from koder_gateway.tls.contexts import ContextOptions, NoCommonProtocolError, ServerContexts
from koder_gateway.tls.sni_callback import ACCESS_DENIED, ILLEGAL_PARAMETER, INTERNAL_ERROR, UNRECOGNIZED_NAME
from koder_gateway.tls.sni_index import SniIndex
from tests.kit.certificates import certificate_pem, key_pem


class Peer:
    """The client's end of one connection, and the server's that it talks to."""

    def __init__(self, contexts, *, name=None, context=None, session=None):
        self.server = contexts.serverConnectionForTLS(None)
        self.server.set_accept_state()
        self.client = SSL.Connection(context or client_context(), None)
        self.client.set_connect_state()
        if name is not None:
            self.client.set_tlsext_host_name(name)
        if session is not None:
            self.client.set_session(session)

    def carry(self):
        """Take what either end has to say to the other one; whether there was anything."""
        moved = False
        for source, sink in ((self.client, self.server), (self.server, self.client)):
            try:
                sink.bio_write(source.bio_read(1 << 16))
                moved = True
            except SSL.WantReadError:
                pass
        return moved

    def handshake(self):
        """Shake hands to the end. Raises SSL.Error when either refuses."""
        waiting = {self.client, self.server}
        while waiting:
            for end in list(waiting):
                try:
                    end.do_handshake()
                    waiting.discard(end)
                except SSL.WantReadError:
                    pass
            assert self.carry() or not waiting
        return self

    def say(self, data):
        """Send from the server, for the session tickets that come before it."""
        self.server.send(data)
        while self.carry():
            pass
        return self.client.recv(1 << 16)

    @property
    def names(self):
        """The DNS names of the certificate that the client was shown."""
        leaf = self.client.get_peer_certificate(as_cryptography=True)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return found.value.get_values_for_type(x509.DNSName)


def client_context(*, maximum=0, minimum=0, ciphers=None, alpn=None, groups=None):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(minimum)
    context.set_max_proto_version(maximum)
    if ciphers:
        context.set_cipher_list(ciphers)
    if alpn:
        context.set_alpn_protos(alpn)
    if groups:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    return context


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    """The certificate for a domain and its subdomains, by the domain."""
    folder = tmp_path_factory.mktemp("issued")
    return lambda domain: self_signed(folder, domain)


@pytest.fixture(scope="module")
def contexts(issued):
    return ServerContexts([issued("a.example")])


@pytest.fixture
def log():
    """What is logged as an error, as text."""
    seen = []

    def observe(event):
        if event["log_level"] is LogLevel.error:
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


def test_provides_what_twisted_asks_for(contexts):
    verifyObject(IOpenSSLServerConnectionCreator, contexts)
    verifyObject(IOpenSSLContextFactory, contexts)
    assert contexts.serverConnectionForTLS(None).get_context() is contexts.getContext()


def test_a_modern_client_gets_tls_1_3_with_a_forward_secret_group(contexts):
    peer = Peer(contexts, context=client_context(alpn=[b"h2", b"http/1.1"])).handshake()
    assert peer.client.get_protocol_version_name() == "TLSv1.3"
    assert peer.client.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    assert peer.client.get_alpn_proto_negotiated() == b"http/1.1"
    assert peer.server.get_alpn_proto_negotiated() == b"http/1.1"


def test_one_key_share_is_enough_for_every_usual_group(contexts):
    for group in (b"X25519", b"P-256", b"P-384"):
        peer = Peer(contexts, context=client_context(groups=group)).handshake()
        assert peer.client.get_protocol_version_name() == "TLSv1.3"


def test_a_tls_1_2_client_gets_an_authenticated_suite(contexts):
    peer = Peer(contexts, context=client_context(maximum=SSL.TLS1_2_VERSION)).handshake()
    assert peer.client.get_protocol_version_name() == "TLSv1.2"
    assert peer.client.get_cipher_name() == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.parametrize(
    "refused",
    [
        {"maximum": SSL.TLS1_1_VERSION, "ciphers": b"ALL:@SECLEVEL=0"},
        {"maximum": SSL.TLS1_2_VERSION, "ciphers": b"ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA"},
        {"maximum": SSL.TLS1_2_VERSION, "ciphers": b"AES128-GCM-SHA256"},
        {"groups": b"ffdhe2048", "minimum": SSL.TLS1_3_VERSION},
        {"alpn": [b"h2"]},
        {"alpn": [b"ftp"]},
    ],
    ids=["tls-1.1", "cbc", "static-rsa", "finite-field", "h2-only", "ftp"],
)
def test_refused(contexts, refused):
    with pytest.raises(SSL.Error):
        Peer(contexts, context=client_context(**refused)).handshake()


@pytest.mark.parametrize("name", [b"a.example", b"b.example"])
def test_a_client_of_another_protocol_is_told_so_and_the_next_one_is_served(issued, name):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    peer = Peer(contexts, name=name, context=client_context(alpn=[b"ftp"]))
    with pytest.raises(NoCommonProtocolError):
        peer.handshake()
    peer.carry()
    with pytest.raises(SSL.Error, match="no application protocol"):
        peer.client.do_handshake()
    assert Peer(contexts, name=name, context=client_context(alpn=[b"http/1.1"])).handshake()


def test_a_client_without_alpn_is_served(contexts):
    peer = Peer(contexts).handshake()
    assert peer.server.get_alpn_proto_negotiated() == b""


def test_another_protocol_can_be_put_first(issued):
    contexts = ServerContexts([issued("a.example")], options=ContextOptions(protocols=(b"h2", b"http/1.1")))
    offered = client_context(alpn=[b"http/1.1", b"h2"])
    assert Peer(contexts, context=offered).handshake().client.get_alpn_proto_negotiated() == b"h2"


def test_renegotiation_is_refused(contexts):
    peer = Peer(contexts, context=client_context(maximum=SSL.TLS1_2_VERSION)).handshake()
    peer.client.renegotiate()
    with pytest.raises(SSL.WantReadError):
        peer.client.do_handshake()
    peer.carry()
    with pytest.raises(SSL.WantReadError):
        peer.server.recv(1 << 16)
    peer.carry()
    with pytest.raises(SSL.Error, match="renegotiation"):
        peer.client.do_handshake()
    assert peer.server.total_renegotiations() == 0


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_session_is_resumed_by_its_ticket(contexts, version):
    context = client_context(maximum=version)
    first = Peer(contexts, context=context).handshake()
    assert first.say(b"hello") == b"hello"
    second = Peer(contexts, context=context, session=first.client.get_session()).handshake()
    assert SSL._lib.SSL_session_reused(second.server._ssl) == 1
    assert SSL._lib.SSL_session_reused(first.server._ssl) == 0


VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])


def begun(contexts, version, name, *, context=None):
    """A client context, and the session of a connection that was made with it."""
    context = context or client_context(maximum=version, minimum=version)
    peer = Peer(contexts, context=context, name=name).handshake()
    peer.say(b"for the tickets")
    # OpenSSL does not go on with the session of a connection that ended without a goodbye.
    peer.client.set_shutdown(SSL.SENT_SHUTDOWN)
    return context, peer.client.get_session()


def resumed(peer):
    return SSL._lib.SSL_session_reused(peer.server._ssl) == 1


@VERSIONS
@pytest.mark.parametrize("name", [None, b"a.example", b"x.a.example", b"b.example", b"x.b.example", b"unknown.test"])
def test_a_session_is_resumed_under_every_certificate(issued, version, name):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    context, session = begun(contexts, version, name)
    again = Peer(contexts, context=context, name=name, session=session).handshake()
    assert resumed(again)
    assert again.server.get_servername() == name
    assert again.server.get_context() is contexts.context_for(name or b"")


@VERSIONS
def test_a_session_is_not_resumed_with_the_keys_before_the_last(issued, version):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    context, session = begun(contexts, version, b"b.example")
    assert resumed(Peer(contexts, context=context, name=b"b.example", session=session).handshake())
    context, session = begun(contexts, version, b"b.example")
    contexts.rotate()
    again = Peer(contexts, context=context, name=b"b.example", session=session).handshake()
    assert not resumed(again)
    assert again.names[0] == "b.example"
    again.say(b"for the tickets")
    session = again.client.get_session()
    assert resumed(Peer(contexts, context=context, name=b"b.example", session=session).handshake())


@VERSIONS
def test_a_session_outlives_another_certificate_s_renewal(issued, tmp_path, version):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    context, session = begun(contexts, version, b"a.example")
    contexts.serve(SniIndex([issued("a.example"), self_signed(tmp_path, "b.example")]))
    assert resumed(Peer(contexts, context=context, name=b"a.example", session=session).handshake())


NAMES = [None, b"a.example", b"b.example", b"exact.b.example", b"x.b.example", b"y.b.example", b"unknown.test"]


@VERSIONS
@pytest.mark.parametrize("before", NAMES)
def test_a_session_of_another_name_costs_a_full_handshake(issued, version, before):
    contexts = ServerContexts([issued("a.example"), issued("b.example"), issued("exact.b.example")])
    for after in NAMES:
        context, session = begun(contexts, version, before)
        again = Peer(contexts, context=context, name=after, session=session).handshake()
        assert resumed(again) is (before == after), after
        assert again.server.get_servername() == after
        assert again.server.get_context() is contexts.context_for(after or b"")
        again.say(b"for the tickets")
        again.client.set_shutdown(SSL.SENT_SHUTDOWN)
        session = again.client.get_session()
        assert resumed(Peer(contexts, context=context, name=after, session=session).handshake()), after


@VERSIONS
def test_case_and_a_last_dot_make_no_other_name(issued, version):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    context, session = begun(contexts, version, b"x.b.example")
    assert resumed(Peer(contexts, context=context, name=b"X.B.Example.", session=session).handshake())


@VERSIONS
@pytest.mark.parametrize("count", [1, 2])
def test_strictly_no_session_goes_on_under_an_unknown_name(issued, version, count):
    contexts = ServerContexts([issued(name) for name in ("a.example", "b.example")[:count]], strict=True)
    context, session = begun(contexts, version, b"a.example")
    assert resumed(Peer(contexts, context=context, name=b"a.example", session=session).handshake())
    for name in (None, b"unknown.test", b"y.x.a.example"):
        context, session = begun(contexts, version, b"a.example")
        assert alert_of(contexts, context=context, name=name, session=session) == UNRECOGNIZED_NAME, name


@VERSIONS
def test_with_one_certificate_its_sessions_go_on_under_any_name(contexts, version):
    context, session = begun(contexts, version, b"a.example")
    assert resumed(Peer(contexts, context=context, name=b"x.a.example", session=session).handshake())


@VERSIONS
def test_a_second_certificate_ends_the_sessions_of_before(issued, version):
    contexts = ServerContexts([issued("a.example")])
    context, session = begun(contexts, version, b"b.example")
    contexts.serve(SniIndex([issued("a.example"), issued("b.example")]))
    again = Peer(contexts, context=context, name=b"b.example", session=session).handshake()
    assert (resumed(again), again.names[0]) == (False, "b.example")


@VERSIONS
def test_a_session_is_refused_if_the_hello_could_not_be_read(issued, version, monkeypatch):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    monkeypatch.setattr(client_hello.ClientHello, "feed", refuse_to_read)
    context, session = begun(contexts, version, b"a.example")
    for name in (b"a.example", b"b.example"):
        assert alert_of(contexts, context=context, name=name, session=session) == ACCESS_DENIED
    assert Peer(contexts, name=b"b.example").handshake().names[0] == "b.example"


def refuse_to_read(self, data):
    raise ValueError


def test_a_second_hello_may_not_ask_for_another_name(issued):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    # The client's only share is of a group that is not spoken here, so it is asked for another one.
    groups = client_context(minimum=SSL.TLS1_3_VERSION, groups=b"P-521:P-256")
    assert Peer(contexts, name=b"b.example", context=groups).handshake().names[0] == "b.example"
    peer = Peer(contexts, name=b"a.example", context=groups)
    for end in (peer.client, peer.server):
        with pytest.raises(SSL.WantReadError):
            end.do_handshake()
        peer.carry()
    peer.client.set_tlsext_host_name(b"b.example")
    with pytest.raises(SSL.WantReadError):
        peer.client.do_handshake()
    peer.carry()
    with pytest.raises(SSL.Error):
        peer.server.do_handshake()
    assert peer.server.bio_read(7)[-2:] == bytes((2, ILLEGAL_PARAMETER))


# -- the alert, byte by byte


def alert_of(contexts, **options):
    """The alert (RFC 8446 section 6) that ends a client's handshake, as it stands on the wire; None if none does."""
    peer = Peer(contexts, **options)
    with suppress(SSL.WantReadError):
        peer.client.do_handshake()
    peer.server.bio_write(peer.client.bio_read(1 << 16))
    try:
        peer.server.do_handshake()
    except SSL.WantReadError:
        return None
    except SSL.Error:
        kind, _, _, _, length, level, code = peer.server.bio_read(7)
        assert (kind, length, level) == (21, 2, 2)
        return code


@VERSIONS
def test_strictly_an_unknown_name_and_none_are_refused_with_the_alert_for_it(issued, version):
    contexts = ServerContexts([issued("a.example"), issued("b.example")], strict=True)
    for name in (None, b"unknown.test", b"y.x.b.example", b"example", b"\xff.example"):
        assert alert_of(contexts, name=name, context=client_context(maximum=version)) == UNRECOGNIZED_NAME, name
    for name in (b"a.example", b"x.a.example", b"X.B.example"):
        assert Peer(contexts, name=name, context=client_context(maximum=version)).handshake()


def test_one_certificate_can_be_strict_too_and_strictness_can_change(issued):
    contexts = ServerContexts([issued("a.example")])
    assert alert_of(contexts, name=b"unknown.test") is None
    contexts.serve(contexts.names, strict=True)
    assert alert_of(contexts, name=b"unknown.test") == UNRECOGNIZED_NAME
    contexts.serve(SniIndex([issued("a.example"), issued("b.example")]))
    assert alert_of(contexts, name=b"unknown.test") == UNRECOGNIZED_NAME
    contexts.serve(contexts.names, strict=False)
    assert alert_of(contexts, name=b"unknown.test") is None


def test_a_certificate_that_openssl_refuses_at_last_is_an_alert_and_one_line(issued, monkeypatch, log):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    monkeypatch.setattr(contexts.names.certificates[1].__class__, "chain", property(refuse))
    for _ in range(2):
        assert alert_of(contexts, name=b"b.example") == INTERNAL_ERROR
    assert log == ["no use"]
    monkeypatch.undo()
    assert Peer(contexts, name=b"b.example").handshake()


def refuse(certificate):
    raise CertificateError("no use")


def test_a_fault_of_ours_is_an_alert_and_logged(issued, logged_errors, monkeypatch):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    monkeypatch.setattr(contexts, "_names", None)
    assert alert_of(contexts, name=b"a.example") == INTERNAL_ERROR
    (event,) = logged_errors.take()
    assert "could not be chosen" in event["log_format"]


# -- many


def test_contexts_are_made_when_they_are_needed_and_the_oldest_is_forgotten(issued):
    certificates = [issued(f"{letter}.example") for letter in "abcd"]
    contexts = ServerContexts(certificates, room=2)
    assert contexts._made == {}
    made = {letter: contexts.context_for(b"%c.example" % ord(letter)) for letter in "abc"}
    assert made["a"] is contexts.getContext()
    assert contexts.context_for(b"b.example") is made["b"]
    contexts.context_for(b"d.example")
    assert len(contexts._made) == 2
    assert contexts.context_for(b"b.example") is made["b"], "used since"
    assert contexts.context_for(b"c.example") is not made["c"], "forgotten"
    assert contexts.context_for(b"a.example") is made["a"], "the default one stays"


def test_contexts_of_certificates_that_have_gone_are_forgotten(issued):
    contexts = ServerContexts([issued("a.example"), issued("b.example"), issued("c.example")])
    kept, gone = contexts.context_for(b"b.example"), contexts.context_for(b"c.example")
    contexts.serve(SniIndex(contexts.certificates[:2]))
    assert list(contexts._made.values()) == [kept]
    assert contexts.context_for(b"c.example") is not gone


def test_other_options_make_every_context_anew(issued):
    contexts = ServerContexts([issued("a.example"), issued("b.example")])
    before = contexts.context_for(b"a.example"), contexts.context_for(b"b.example")
    contexts.serve(contexts.names, options=ContextOptions())
    assert (contexts.context_for(b"a.example"), contexts.context_for(b"b.example")) == before
    contexts.serve(contexts.names, options=ContextOptions(maximum=SSL.TLS1_2_VERSION))
    for name in (b"a.example", b"b.example"):
        assert Peer(contexts, name=name).handshake().client.get_protocol_version_name() == "TLSv1.2"
    assert contexts.getContext() is not before[0]


def test_nothing_is_read_in_a_handshake(issued, tmp_path):
    path = tmp_path / "b.pem"
    shutil.copy(issued("b.example").path, path)
    contexts = ServerContexts([issued("a.example"), load_pair("b", path, path)])
    path.unlink()
    assert Peer(contexts, name=b"b.example").handshake().names[0] == "b.example"


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        (b"a.example", "a.example"),
        (b"b.example", "b.example"),
        (b"x.b.example", "b.example"),
        (b"X.B.Example", "b.example"),
        (b"y.x.b.example", "a.example"),
        (b"example", "a.example"),
        (b"unknown.test", "a.example"),
        (b"exact.b.example", "exact.b.example"),
        (None, "a.example"),
    ],
)
def test_the_server_name_picks_the_certificate(issued, name, domain):
    contexts = ServerContexts([issued("a.example"), issued("b.example"), issued("exact.b.example")])
    peer = Peer(contexts, name=name, context=client_context(alpn=[b"http/1.1"])).handshake()
    assert peer.names[0] == domain
    assert peer.client.get_alpn_proto_negotiated() == b"http/1.1"
    assert peer.server.get_servername() == name


def test_the_default_is_the_one_that_is_named(issued):
    certificates = [issued("a.example"), issued("b.example")]
    contexts = ServerContexts(certificates, default="b.example")
    assert Peer(contexts, name=b"unknown.test").handshake().names[0] == "b.example"
    assert Peer(contexts, name=b"a.example").handshake().names[0] == "a.example"
    with pytest.raises(CertificateError, match=r'"c\.example"; name one of a\.example, b\.example'):
        ServerContexts(certificates, default="c.example")


def test_of_two_certificates_for_a_name_the_longer_valid_one_is_served(tmp_path):
    early, late = (self_signed(tmp_path / str(now), "a.example", now=now) for now in (1.9e9, 2.0e9))
    for certificates in ([early, late], [late, early]):
        assert (
            Peer(ServerContexts(certificates), name=b"x.a.example")
            .handshake()
            .client.get_peer_certificate(as_cryptography=True)
            == late.leaf
        )


def test_new_certificates_serve_new_connections_only(issued):
    contexts = ServerContexts([issued("a.example")])
    old = Peer(contexts, name=b"b.example").handshake()
    contexts.serve(SniIndex([issued("a.example"), issued("b.example")]))
    assert Peer(contexts, name=b"b.example").handshake().names[0] == "b.example"
    assert old.say(b"still here") == b"still here"
    assert [each.name for each in contexts.certificates] == ["a.example", "b.example"]


def test_a_key_that_openssl_finds_too_weak_is_one_line(tmp_path):
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 (too weak on purpose)
    path = tmp_path / "weak.pem"
    path.write_bytes(key_pem(key) + certificate_pem(key, "weak.example"))
    with pytest.raises(CertificateError) as caught:
        ServerContexts([load_pair("weak", path, path)])
    assert str(caught.value).startswith(f"{path}: OpenSSL refuses it: ee key too small")
    assert "\n" not in str(caught.value)


def test_nothing_to_serve_is_refused():
    with pytest.raises(CertificateError, match="no certificate"):
        ServerContexts([])


def test_tls_1_2_can_be_the_newest(issued):
    contexts = ServerContexts([issued("a.example")], options=ContextOptions(maximum=SSL.TLS1_2_VERSION))
    assert Peer(contexts).handshake().client.get_protocol_version_name() == "TLSv1.2"


def test_the_chain_is_sent_whole(tmp_path, issued):
    leaf, issuer = issued("a.example"), issued("b.example")
    path = tmp_path / "chain.pem"
    shutil.copy(leaf.path, path)
    with path.open("ab") as file:
        file.write(issuer.leaf.public_bytes(serialization.Encoding.PEM))
    peer = Peer(ServerContexts([load_pair("chain", path, path)])).handshake()
    assert peer.client.get_peer_cert_chain(as_cryptography=True) == [leaf.leaf, issuer.leaf]
