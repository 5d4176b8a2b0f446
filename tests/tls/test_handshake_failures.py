"""Handshakes that fail: what is counted and told of each kind, and that a flood of them is a few lines."""

from __future__ import annotations

import contextlib
import socket
from types import SimpleNamespace

import pytest
from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.handshake_failures import (
    NOT_TLS,
    OLD_VERSION,
    PLAIN_HTTP,
    TOLD,
    UNRECOGNIZED_NAME,
    HandshakeFailures,
)
from koder_gateway.tls.stream import TLSTransport
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.memory import join

PEER = "192.0.2.1"


@pytest.fixture
def lines():
    """What is logged."""
    found = []

    def observe(event):
        found.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), "id.test")


class Door:
    """A `TLSTransport` in memory, and the failures that it tells of."""

    def __init__(self, certificate, *, strict=False):
        self.failures = HandshakeFailures()
        contexts = ServerContexts([certificate], strict=strict)
        self.server = TLSTransport(contexts.serverConnectionForTLS(None), Protocol(), self.failures)
        self.clock = Clock()
        self.wire = join(self.clock, self.server, peer=PEER)

    @property
    def counted(self):
        """The reasons that were counted."""
        return {reason: count for reason, count in self.failures.counts.items() if count}

    def shake_hands(self, context, name=b""):
        """Have a client of OpenSSL's try, to the end."""
        client = SSL.Connection(context, None)
        client.set_connect_state()
        if name:
            client.set_tlsext_host_name(name)
        for _ in range(4):
            with contextlib.suppress(SSL.Error):
                client.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                self.wire.send(client.bio_read(1 << 16))
            arrived, self.wire.received = self.wire.received, b""
            if arrived:
                client.bio_write(arrived)
        return self


def context(version=0, *, ciphers=b"ALL:@SECLEVEL=0", alpn=(), trusting=True):
    made = SSL.Context(SSL.TLS_CLIENT_METHOD)
    made.set_min_proto_version(version)
    made.set_max_proto_version(version)
    made.set_cipher_list(ciphers)
    if alpn:
        made.set_alpn_protos(list(alpn))
    if not trusting:
        made.set_verify(SSL.VERIFY_PEER)
    return made


@pytest.mark.parametrize(
    ("sent", "reason", "line"),
    [
        (b"\0" * 64, "not_tls", "TLS handshake failed: the client did not send TLS; from 192.0.2.1"),
        (b"SSH-2.0-x\r\n", "not_tls", "TLS handshake failed: the client did not send TLS; from 192.0.2.1"),
        (b"EHLO id.test\r\n", "not_tls", "TLS handshake failed: the client did not send TLS; from 192.0.2.1"),
        (b"\x17\x03\x03\0\5hello", "not_tls", "TLS handshake failed: the client did not send TLS; from 192.0.2.1"),
        (
            b"\x80\x2e\x01\x00\x02" + b"\0" * 60,
            "old_version",
            "TLS handshake failed: the client offers no TLS 1.2 or newer; from 192.0.2.1",
        ),
        (
            b"\x16\x03\x01\0\5hello",
            "other",
            "TLS handshake failed: unexpected message, alert 10; from 192.0.2.1",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "plain_http",
            "TLS handshake failed: a plain HTTP request, answered with 400; from 192.0.2.1",
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_what_is_no_handshake_is_told(certificate, lines, sent, reason, line, size):
    door = Door(certificate)
    for start in range(0, len(sent), size):
        if not door.wire.closed:
            door.wire.send(sent[start : start + size])
    assert door.wire.closed == "clean"
    assert (door.counted, lines) == ({reason: 1}, [line])


@pytest.mark.parametrize(
    ("client", "name", "reason", "line"),
    [
        (
            context(SSL.TLS1_1_VERSION),
            b"id.test",
            "old_version",
            "TLS handshake failed: the client offers no TLS 1.2 or newer; from 192.0.2.1",
        ),
        (
            context(SSL.TLS1_2_VERSION, ciphers=b"AES256-SHA"),
            b"id.test",
            "no_common_cipher",
            (
                "TLS handshake failed: the client has no cipher, group or signature in common with the gateway"
                " (no shared cipher); 192.0.2.1 asked for id.test"
            ),
        ),
        (
            context(alpn=[b"imap"]),
            b"id.test",
            "no_common_protocol",
            (
                "TLS handshake failed: the client offers none of the protocols that are spoken here (ALPN);"
                " 192.0.2.1 asked for id.test"
            ),
        ),
        (
            context(),
            b"who.test",
            "unrecognized_name",
            (
                "TLS handshake failed: there is no certificate for this name, and tls.strict_sni"
                " refuses such clients;"
                " 192.0.2.1 asked for who.test"
            ),
        ),
        (
            context(SSL.TLS1_2_VERSION),
            b"",
            "unrecognized_name",
            (
                "TLS handshake failed: there is no certificate for this name, and tls.strict_sni"
                " refuses such clients;"
                " 192.0.2.1 asked for no name"
            ),
        ),
        (
            context(trusting=False),
            b"id.test",
            "client_alert",
            "TLS handshake failed: the client aborted it (tlsv1 alert unknown ca); 192.0.2.1 asked for id.test",
        ),
    ],
)
def test_a_handshake_that_fails_is_told(certificate, lines, client, name, reason, line):
    door = Door(certificate, strict=True).shake_hands(client, name)
    assert (door.counted, lines) == ({reason: 1}, [line])


def test_a_handshake_that_succeeds_is_not_told(certificate, lines):
    door = Door(certificate).shake_hands(context(), b"id.test")
    assert door.server.tls_connection is not None
    assert (door.counted, lines) == ({}, [])


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET"])
def test_a_handshake_that_was_only_begun_is_no_failure(certificate, lines, sent):
    door = Door(certificate)
    door.wire.send(sent)
    door.server.loseConnection()
    assert (door.wire.closed, door.counted, lines) == ("reset", {}, [])


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"GET / HTTP/1.1\r\nHost:", "plain_http"), (b"hello", "not_tls"), (b"\r\n\r\n\r\n", "not_tls")],
)
def test_what_is_no_tls_and_never_ends_is_told_at_the_deadline(certificate, lines, sent, reason):
    door = Door(certificate)
    door.wire.send(sent)
    assert (door.counted, lines) == ({}, [])
    door.server.loseConnection()
    door.server.loseConnection()
    assert door.counted == {reason: 1}
    assert len(lines) == 1


def test_a_flood_is_a_line_now_and_then(lines):
    now = [0.0]
    failures = HandshakeFailures(10.0, lambda: now[0])
    peer = SimpleNamespace(host="2001:db8::1")
    for step in range(100):
        now[0] = step / 2
        failures.note(NOT_TLS if step % 2 else PLAIN_HTTP, peer)
    assert len(lines) == 5
    assert lines[0] == "TLS handshake failed: a plain HTTP request, answered with 400; from 2001:db8::1"
    assert lines[1] == f"{lines[0]} (19 more since the last line: 10 not_tls, 9 plain_http)"
    assert failures.counts[NOT_TLS] == failures.counts[PLAIN_HTTP] == 50


def test_a_flood_of_others_hides_no_client_s_certificate(lines):
    failures = HandshakeFailures(10.0, lambda: 0.0)
    for _ in range(3):
        failures.note(OLD_VERSION, None)
        failures.note("client_certificate", None, "expired", b"id.test")
    assert lines == [
        "TLS handshake failed: the client offers no TLS 1.2 or newer; from an unknown client",
        "client certificate refused: expired; an unknown client asked for id.test",
    ]


def test_a_name_of_control_characters_breaks_no_line(lines):
    HandshakeFailures().note(UNRECOGNIZED_NAME, None, "", b"a\nb\x1b[0m{x}\xff")
    assert len(lines) == 1
    assert lines[0].isprintable()


@pytest.mark.parametrize("error", [SSL.Error(), SSL.Error([]), SSL.Error("x"), SSL.SysCallError(104, "reset")])
def test_an_error_without_words_is_counted(certificate, lines, error):
    failures = HandshakeFailures()
    connection = ServerContexts([certificate]).serverConnectionForTLS(None)
    failures.failed(error, connection, b"\x16\x03\x01", b"", None)
    assert failures.counts["other"] == 1
    assert lines == ["TLS handshake failed: OpenSSL gives no reason; from an unknown client"]


def test_a_client_that_says_goodbye_has_not_failed(certificate, lines):
    failures = HandshakeFailures()
    connection = ServerContexts([certificate]).serverConnectionForTLS(None)
    failures.failed(SSL.ZeroReturnError(), connection, b"\x16\x03\x01", b"", None)
    assert (sum(failures.counts.values()), lines) == (0, [])


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_a_gateway_counts_and_tells(tmp_path, reactor):
    """Over sockets: also a head without end gets its answer, when its time is over."""
    text = configuration({}, {"timeouts": {"head": "1s"}})
    with GatewayProcess(tmp_path, text, ports=(GatewayProcess.TLS,), reactor=reactor) as gateway:

        def answer(sent):
            with socket.create_connection(("127.0.0.1", gateway.ports[0]), 20) as client:
                client.sendall(sent)
                return b"".join(iter(lambda: client.recv(1 << 16), b""))

        assert answer(b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\n").startswith(b"HTTP/1.1 400 ")
        assert answer(b"GET /\r\n").startswith(b"HTTP/1.1 400 ")
        assert answer(b"\0" * 10) == b""
        metrics = gateway.metrics()
        name = "koder_gateway_tls_handshake_failures_total"
        failures = {reason: metrics[f'{name}{{reason="{reason}"}}'] for reason in TOLD}
        log = gateway.log()
    assert {reason: count for reason, count in failures.items() if count} == {"plain_http": 2, "not_tls": 1}
    assert log.count("TLS handshake failed: ") == 1
    assert "TLS handshake failed: a plain HTTP request, answered with 400; from 127.0.0.1" in log


class Fed:
    """A protocol above TLS that is a producer for it, as the gateway's channels are."""

    def __init__(self):
        self.stopped = False

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass

    def stopProducing(self):
        self.stopped = True


@pytest.mark.parametrize("sent", [b"\0" * 64, b"\x16\x03\x01\0\5hello", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_that_fails_waits_for_no_producer(certificate, sent):
    door = Door(certificate)
    door.server.registerProducer(Fed(), True)
    door.wire.send(sent)
    assert door.wire.closed == "clean"
