"""TLS-ALPN-01: a client that offers acme-tls/1 alone sees the challenge of its name, and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from koder_gateway.tls import acme_challenges, client_hello
from koder_gateway.tls.acme_challenges import PROTOCOL, AlpnChallenges
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.client_auth import client_verification
from koder_gateway.tls.client_hello import NamedConnection
from koder_gateway.tls.contexts import HTTP_2, ContextOptions, ServerContexts
from koder_gateway.tls.handshake_failures import NO_COMMON_PROTOCOL, UNRECOGNIZED_NAME, HandshakeFailures
from koder_gateway.tls.stream import TLSTransport
from tests.kit.certificates import ACME_IDENTIFIER, challenge_pem
from tests.kit.memory import join
from tests.tls.test_contexts import Peer, client_context

NAME = "login.koder.example"
VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])


@dataclass(frozen=True)
class Place:
    """Challenges in one folder, NAME.pem each."""

    folder: Path

    def alpn_challenge(self, name):
        plain = name.isascii() and "." in name and not set(name) & set("/%") and ".." not in name
        return self.folder / f"{name}.pem" if plain else None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), "id.test")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / f"{NAME}.pem").write_bytes(challenge_pem(NAME))
    return tmp_path


def made(certificate, folder, **options):
    contexts = ServerContexts([certificate], **options)
    contexts.answer_challenges(Place(folder))
    return contexts, contexts.challenges


def asked(version=0, *, offering=(PROTOCOL,)):
    return client_context(minimum=version, maximum=version, alpn=list(offering))


def shown(client):
    """Whether a client was shown the answer to a challenge."""
    leaf = client.get_peer_certificate(as_cryptography=True)
    return leaf is not None and any(each.oid == ACME_IDENTIFIER for each in leaf.extensions)


@VERSIONS
@pytest.mark.parametrize("name", [NAME, NAME.upper(), f"{NAME}."])
def test_a_challenge_is_answered(certificate, folder, version, name):
    contexts, challenges = made(certificate, folder)
    peer = Peer(contexts, name=name.encode(), context=asked(version)).handshake()
    assert shown(peer.client)
    assert peer.client.get_alpn_proto_negotiated() == PROTOCOL
    assert challenges == {"answered": 1, "unknown": 0, "faulty": 0}


@VERSIONS
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "offering",
    [(b"h2", PROTOCOL), (PROTOCOL, b"http/1.1"), (b"http/1.1",), (PROTOCOL, PROTOCOL), (b"acme-tls/2",)],
)
def test_a_client_that_offers_anything_else_gets_no_challenge(certificate, folder, version, offering, strict):
    contexts, challenges = made(certificate, folder, strict=strict)
    peer = Peer(contexts, name=NAME.encode(), context=asked(version, offering=offering))
    if strict or b"http/1.1" not in offering:
        with pytest.raises(SSL.Error):
            peer.handshake()
    else:
        peer.handshake()
        assert peer.client.get_alpn_proto_negotiated() == b"http/1.1"
    assert not shown(peer.client)
    assert not any(challenges.values())


def test_the_protocol_s_bytes_elsewhere_in_a_hello_are_no_challenge(certificate, folder):
    # What the search finds first is here the second protocol of a list.
    protocol = b"\0\x0d\0\x0b\x0aacme-tls/1"
    contexts, challenges = made(certificate, folder)
    context = asked(offering=[b"http/1.1", protocol])
    peer = Peer(contexts, name=NAME.encode(), context=context).handshake()
    assert not shown(peer.client)
    assert not any(challenges.values())


@VERSIONS
def test_names_are_strict_and_clients_are_verified_for_others_only(certificate, folder, version):
    authorities = SimpleNamespace(certificates=[certificate.leaf], digest=b"some")
    options = ContextOptions(clients=client_verification(authorities, [("*", "required")]), protocols=HTTP_2)
    contexts, _ = made(certificate, folder, strict=True, options=options)
    peer = Peer(contexts, name=NAME.encode(), context=asked(version)).handshake()
    assert shown(peer.client)
    assert not peer.client.get_client_ca_list()


@pytest.mark.parametrize(
    "name",
    [
        b"other.koder.example",
        b"koder.example",
        b"..",
        b"../up.example",
        b"a/b.example",
        b"%2e.example",
        b"a..example",
        b"\xff.example",
        b"x" * 64 + b".example",
        b"localhost",
        None,
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_name_without_a_challenge_is_refused_as_ever(certificate, folder, name, strict):
    (folder.parent / "up.example.pem").write_bytes(challenge_pem("up.example"))
    contexts, challenges = made(certificate, folder, strict=strict)
    with pytest.raises(SSL.Error):
        Peer(contexts, name=name, context=asked()).handshake()
    assert challenges == {"answered": 0, "unknown": 1, "faulty": 0}


def test_a_challenge_is_read_when_it_is_asked_for_and_gone_when_its_file_is(certificate, folder):
    contexts, _ = made(certificate, folder)
    path = folder / f"{NAME}.pem"
    serials = set()
    for _ in range(2):
        peer = Peer(contexts, name=NAME.encode(), context=asked()).handshake()
        serials.add(peer.client.get_peer_certificate(as_cryptography=True).serial_number)
        other = folder / "new"
        other.write_bytes(challenge_pem(NAME))
        os.replace(other, path)
    assert len(serials) == 2
    path.unlink()
    with pytest.raises(SSL.Error):
        Peer(contexts, name=NAME.encode(), context=asked()).handshake()


def test_a_name_that_is_asked_for_again_and_again_is_read_once(certificate, folder, monkeypatch):
    contexts, challenges = made(certificate, folder)
    Peer(contexts, name=NAME.encode(), context=asked()).handshake()

    def refuse(self, path):
        raise AssertionError("it was read again")

    monkeypatch.setattr(AlpnChallenges, "_read", refuse)
    Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    assert challenges["answered"] == 2


def test_as_many_challenges_are_kept_as_there_is_room_for(certificate, folder, monkeypatch):
    monkeypatch.setattr(acme_challenges, "ROOM", 2)
    contexts, _ = made(certificate, folder)
    for number in range(4):
        name = f"n{number}.example"
        (folder / f"{name}.pem").write_bytes(challenge_pem(name))
        assert shown(Peer(contexts, name=name.encode(), context=asked()).handshake().client)
    assert len(contexts._challenges._made) == 2


def test_a_challenge_that_cannot_be_used_is_one_line(certificate, folder):
    (folder / f"{NAME}.pem").write_text("rubbish")
    lines = []

    def observe(event):
        if event["log_level"] is LogLevel.error:
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    contexts, challenges = made(certificate, folder)
    for _ in range(3):
        with pytest.raises(SSL.Error):
            Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    globalLogPublisher.removeObserver(observe)
    assert len(lines) == 1
    assert str(folder / f"{NAME}.pem") in lines[0]
    assert challenges["faulty"] == 3


def test_none_is_answered_any_more_without_a_folder(certificate, folder):
    contexts, _ = made(certificate, folder)
    contexts.answer_challenges(None)
    with pytest.raises(SSL.Error):
        Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    assert not isinstance(contexts.serverConnectionForTLS(None), NamedConnection)


def test_counts_outlive_a_change_of_places(certificate, folder, tmp_path):
    contexts, challenges = made(certificate, folder)
    Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    contexts.answer_challenges(Place(tmp_path / "other"))
    with pytest.raises(SSL.Error):
        Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    assert challenges == {"answered": 1, "unknown": 1, "faulty": 0}


def test_twisted_s_own_tls_gets_no_challenge(certificate, folder):
    contexts, _ = made(certificate, folder)
    assert not contexts.serverConnectionForTLS(object()).answerable


@VERSIONS
def test_a_second_hello_may_not_offer_more(certificate, folder, version, monkeypatch):
    # As after a HelloRetryRequest whose answer differs: the first hello alone was a challenge's.
    def pretend(self, data):
        self.challenge = True
        return NAME.encode()

    monkeypatch.setattr(client_hello.ClientHello, "feed", pretend)
    contexts, _ = made(certificate, folder)
    with pytest.raises(SSL.Error):
        Peer(contexts, name=NAME.encode(), context=asked(version, offering=[b"h2", PROTOCOL])).handshake()


class Recorder(Protocol):
    """What a connection has brought to the protocol above TLS."""

    def __init__(self):
        self.received = b""
        self.lost = False

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.lost = True


class Served:
    """A client's handshake with a `TLSTransport`, in memory."""

    def __init__(self, contexts, context, name=NAME, steps=4):
        self.failures = HandshakeFailures()
        self.charged = []
        self.failures.charge = lambda host: bool(self.charged.append(host))
        self.inner = Recorder()
        clock = Clock()
        self.wire = join(
            clock, TLSTransport(contexts.serverConnectionForTLS(None), self.inner, self.failures), peer="192.0.2.1"
        )
        self.client = SSL.Connection(context, None)
        self.client.set_connect_state()
        self.client.set_tlsext_host_name(name.encode())
        self.error = None
        for _ in range(steps):
            self._step()

    def _step(self):
        try:
            self.client.do_handshake()
            self.error = None
        except SSL.Error as error:
            self.error = error
        self.carry()

    def carry(self):
        with suppress(SSL.WantReadError):
            self.wire.send(self.client.bio_read(1 << 16))
        arrived, self.wire.received = self.wire.received, b""
        if arrived:
            self.client.bio_write(arrived)


@VERSIONS
def test_no_request_is_served_after_a_challenge(certificate, folder, version):
    contexts, _ = made(certificate, folder)
    served = Served(contexts, asked(version))
    assert served.error is None
    assert shown(served.client)
    with pytest.raises(SSL.ZeroReturnError):
        served.client.recv(1 << 10)
    served.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    served.carry()
    assert served.inner.received == b""
    assert served.inner.lost
    assert served.failures.completed.counts == {}
    assert not any(served.failures.counts.values())


def test_a_request_that_comes_with_the_end_of_the_handshake_is_not_served(certificate, folder):
    contexts, _ = made(certificate, folder)
    served = Served(contexts, asked(), steps=1)
    served.client.do_handshake()
    served.client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    served.carry()
    assert shown(served.client)
    assert served.inner.received == b""
    assert served.inner.lost


@VERSIONS
@pytest.mark.parametrize("strict", [False, True])
def test_strangers_are_charged_as_for_any_failed_handshake(certificate, folder, version, strict):
    contexts, _ = made(certificate, folder, strict=strict)
    served = Served(contexts, asked(version), "other.example")
    assert served.charged == ["192.0.2.1"]
    counted = [reason for reason, count in served.failures.counts.items() if count]
    assert counted == [UNRECOGNIZED_NAME if strict else NO_COMMON_PROTOCOL]


@VERSIONS
def test_ordinary_clients_are_served_beside_it(certificate, folder, version):
    contexts, challenges = made(certificate, folder)
    served = Served(contexts, asked(version, offering=[b"http/1.1"]), "a.id.test")
    served.client.send(b"hello")
    served.carry()
    assert served.inner.received == b"hello"
    assert not any(challenges.values())


def test_the_certificate_names_the_challenge_s_name(certificate, folder):
    contexts, _ = made(certificate, folder)
    peer = Peer(contexts, name=NAME.encode(), context=asked()).handshake()
    leaf = peer.client.get_peer_certificate(as_cryptography=True)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
