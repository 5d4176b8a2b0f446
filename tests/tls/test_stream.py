"""TLS between a client and a protocol: every byte both ways, every way to end, and nothing kept or leaked between."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import re
import shutil
import weakref
from time import process_time

import pytest
import pytest_twisted
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from koder_gateway.reactor.early_reads import EarlyReads
from koder_gateway.reactor.turns import ARRIVALS, Turns
from koder_gateway.tls import plain_http, stream
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.factory import TLSFactory, over_tls
from koder_gateway.tls.handshake_failures import HandshakeFailures
from koder_gateway.tls.stream import TLSTransport
from koder_gateway.tls_bio import records as layer
from koder_gateway.wire.refusal_writer import RefusalWriter
from tests.kit.memory import join

MIB = 1 << 20
SIZES = (0, 1, 16383, 16384, 16385, 500_000, (1 << 19) - 1, 1 << 19, (1 << 19) + 1, 5 * MIB + 3)


def pattern(size):
    """Bytes of which no two nearby pieces are alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return ServerContexts([self_signed(tmp_path_factory.mktemp("tls"), "id.test")])


@implementer(IHandshakeListener)
class Inner(Protocol):
    """What is above TLS. `then` does something with what arrives, `at_start` when it is connected."""

    def __init__(self, then=None, at_start=None):
        self.heard = b""
        self.reads = 0
        self.lost = []
        self.handshakes = 0
        self.then = then
        self.at_start = at_start

    def connectionMade(self):
        if self.at_start is not None:
            self.at_start(self.transport)

    def handshakeCompleted(self):
        self.handshakes += 1

    def dataReceived(self, data):
        assert not self.lost
        self.heard += data
        self.reads += 1
        if self.then is not None:
            self.then(self.transport)

    def connectionLost(self, reason):
        self.lost.append(reason.type)


class Producer:
    """Counts what it is told."""

    def __init__(self):
        self.told = []

    def pauseProducing(self):
        self.told.append("pause")

    def resumeProducing(self):
        self.told.append("resume")

    def stopProducing(self):
        self.told.append("stop")


def client_context(version, alpn):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if alpn:
        context.set_alpn_protos(list(alpn))
    return context


class Client:
    """A TLS client in memory before a `TLSTransport`; `cut` says how its records reach it."""

    def __init__(self, contexts, inner=None, *, version=0, alpn=(), after=None, cut=None, keys=None):
        self.clock = Clock()
        self.inner = Inner() if inner is None else inner
        self.cut = cut
        self.heard = b""
        self.ready = False
        self.ended = None
        # A session belongs to the OpenSSL context that it was made with.
        context = client_context(version, alpn) if after is None else after.tls.get_context()
        if keys is not None:
            context.set_keylog_callback(lambda connection, line: keys.append(line))
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        if after is not None:
            self.tls.set_session(after.tls.get_session())
        self.server = TLSTransport(contexts.serverConnectionForTLS(None), self.inner)
        self.wire = join(self.clock, self.server, peer="192.0.2.1")

    def pump(self):
        """Carry everything that either side has to say."""
        self.take()
        while True:
            sent = self.flush()
            arrived, self.wire.received = self.wire.received, b""
            if arrived:
                self.tls.bio_write(arrived)
            self.take()
            if not (sent or arrived):
                return self

    def flush(self):
        """Send what the client's OpenSSL has to say."""
        records = self.pending()
        if not self.wire.gone:
            for piece in (records,) if self.cut is None else self.cut(records):
                self.wire.send(piece)
        return bool(records)

    def pending(self):
        """What the client's OpenSSL has to say, taken out."""
        records = []
        try:
            while True:
                records.append(self.tls.bio_read(MIB))
        except SSL.WantReadError:
            return b"".join(records)

    def take(self):
        """Let the client's OpenSSL read what has arrived."""
        try:
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
            while True:
                self.heard += self.tls.recv(MIB)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = "close_notify"
        except SSL.Error as error:
            self.ended = self.ended or str(error)

    def say(self, data):
        """Encrypt; `pump` sends."""
        view = memoryview(data)
        while view:
            view = view[self.tls.send(view[:16384]) :]
        return self

    def hang_up(self, reason):
        """The transport below is lost."""
        self.server.transport.lose(reason)
        self.wire.gone = True
        self.clock.advance(0)


@pytest.fixture
def connect(contexts):
    """Makes clients that have shaken hands."""

    def make(inner=None, **options):
        client = Client(contexts, inner, **options).pump()
        assert client.ready
        return client

    return make


def cut_at(sizes):
    """Cuts records into pieces of these sizes, over and over."""

    def cut(data):
        position, turn = 0, 0
        while position < len(data):
            size = sizes[turn % len(sizes)]
            yield data[position : position + size]
            position, turn = position + size, turn + 1

    return cut


# -- bytes


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_of_a_write_arrives(connect, size, version):
    client = connect(version=version)
    data = pattern(size)
    client.inner.transport.write(data)
    assert client.pump().heard == data


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_of_one_read_arrives(connect, size, version):
    client = connect(version=version)
    data = pattern(size)
    client.say(data).pump()
    assert client.inner.heard == data


@given(
    writes=st.lists(st.binary(max_size=40_000), max_size=6),
    says=st.lists(st.binary(min_size=1, max_size=40_000), max_size=6),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    version=st.sampled_from([SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]),
)
def test_bytes_are_the_same_however_they_are_cut(contexts, writes, says, sizes, version):
    client = Client(contexts, version=version, cut=cut_at(sizes)).pump()
    for data in says:
        client.say(data)
    for data in writes:
        client.inner.transport.write(data)
    client.pump()
    assert (client.inner.heard, client.heard) == (b"".join(says), b"".join(writes))


def test_records_may_come_byte_by_byte(contexts):
    client = Client(contexts, cut=cut_at([1])).pump()
    client.say(b"one").pump()
    assert client.inner.heard == b"one"


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_the_memory_of_a_handshake_is_replaced_and_no_byte_with_it(connect, version):
    """Also in the midst of a record, which OpenSSL has taken as far as it has come."""
    client = connect(version=version)
    server = client.server
    before = server._incoming, server._outgoing
    records = client.say(b"one").pending()
    client.wire.send(records[:9])
    assert server.give_back()
    assert before[0] != server._incoming
    assert before[1] != server._outgoing
    client.wire.send(records[9:])
    server.write(b"two")
    assert (client.inner.heard, client.pump().heard) == (b"one", b"two")
    client.say(b"three").pump()
    assert client.inner.heard == b"onethree"


def test_what_openssl_has_not_taken_or_sent_keeps_its_memory(connect):
    client = connect()
    server = client.server
    layer.lib.SSL_write(server._ssl, b"waits", 5)
    before = server._outgoing
    assert server.give_back()
    assert server._outgoing == before
    server._flush()
    assert client.pump().heard == b"waits"


def test_a_connection_that_has_ended_has_nothing_to_settle(connect):
    client = connect()
    client.hang_up(ConnectionLost())
    assert not client.server.give_back()


def test_connections_settle_at_a_tick_if_they_last(contexts):
    failures = HandshakeFailures()
    clients = []
    for _ in range(3):
        inner = Inner()
        client = Client(contexts, inner)
        client.server._failures = failures
        clients.append((client.pump(), client.server._incoming))
    clients[0][0].hang_up(ConnectionLost())
    failures.young.sweep()
    assert [client.server._incoming is not None for client, _ in clients] == [False, True, True]
    assert all(client.server._incoming != before for client, before in clients)


def test_a_sequence_is_one_write(connect):
    client = connect()
    client.inner.transport.writeSequence([b"a", b"", b"bc"])
    assert client.pump().heard == b"abc"


def test_small_records_of_one_read_are_one_read_above(connect):
    client = connect()
    for _ in range(50):
        client.say(b"x")
    client.pump()
    assert (client.inner.heard, client.inner.reads) == (b"x" * 50, 1)


# -- the handshake


def test_what_is_written_before_the_handshake_is_sent_after_it(contexts):
    data = pattern(70_000)

    def start(transport):
        transport.write(b"early ")
        transport.writeSequence([b"and ", data])

    client = Client(contexts, Inner(at_start=start))
    assert client.wire.received == b""
    assert client.pump().heard == b"early and " + data
    assert client.inner.handshakes == 1


def test_what_is_written_and_closed_before_the_handshake_is_sent_and_closed_after_it(contexts):
    def start(transport):
        transport.write(b"refused")
        transport.loseConnection()
        transport.loseConnection()

    client = Client(contexts, Inner(at_start=start))
    assert client.wire.closed == ""
    client.pump()
    assert (client.heard, client.ended, client.wire.closed) == (b"refused", "close_notify", "clean")
    assert client.inner.lost == [ConnectionDone]


def test_a_close_before_the_handshake_with_nothing_to_say_ends_at_once(contexts):
    client = Client(contexts)
    client.inner.transport.loseConnection()
    client.clock.advance(0)
    assert (client.wire.closed, client.inner.lost) == ("reset", [ConnectionAborted])


def test_a_close_in_the_midst_of_a_handshake_ends_at_once(contexts):
    client = Client(contexts)
    client.take()
    client.flush()
    assert client.wire.received
    client.inner.transport.loseConnection()
    client.clock.advance(0)
    assert (client.wire.closed, client.inner.lost) == ("reset", [ConnectionAborted])


def test_a_producer_that_begins_before_the_handshake_delays_its_close(contexts):
    client = Client(contexts)
    client.inner.transport.registerProducer(Producer(), True)
    client.inner.transport.loseConnection()
    client.pump()
    assert (client.ready, client.wire.closed) == (True, "")
    client.inner.transport.write(b"rest")
    client.inner.transport.unregisterProducer()
    client.pump()
    assert (client.heard, client.ended, client.wire.closed) == (b"rest", "close_notify", "clean")


def test_a_half_open_connection_ends_with_its_deadline(contexts):
    client = Client(contexts)
    client.wire.send(b"\x16\x03\x01\x02\x00\x01")
    client.clock.callLater(10, client.inner.transport.loseConnection)
    client.clock.advance(9)
    assert (client.wire.closed, client.inner.lost) == ("", [])
    client.clock.advance(1)
    client.clock.advance(0)
    assert (client.wire.closed, client.inner.lost) == ("reset", [ConnectionAborted])


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_old_versions_are_refused(contexts, version):
    client = Client(contexts, version=version).pump()
    assert not client.ready
    assert "protocol version" in client.ended
    assert (client.wire.closed, client.inner.heard, client.inner.lost) == ("clean", b"", [ConnectionDone])


@pytest.mark.parametrize(
    "garbage", [b"\0" * 64, b"\xff" * 20_000, b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x00\x02"]
)
@pytest.mark.parametrize("shut", [False, True])
def test_garbage_ends_the_connection(contexts, garbage, shut):
    def start(transport):
        transport.write(b"secret")
        if shut:
            transport.loseConnection()

    client = Client(contexts, Inner(at_start=start))
    client.wire.send(garbage)
    assert (client.wire.closed, client.inner.heard, client.inner.lost) == ("clean", b"", [ConnectionDone])
    assert client.wire.received == b"" or client.wire.received[:1] == b"\x15"
    assert b"secret" not in client.wire.received


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"OPTIONS"])
def test_plain_http_is_told_so(contexts, method):
    client = Client(contexts)
    client.wire.send(method + b" / HTTP/1.1\r\nHost: id.test\r\n\r\n")
    head, _, body = client.wire.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == ("bad_request", 400)
    assert "TLS" in problem["detail"]
    assert re.fullmatch("[0-9a-f]{32}", problem["request_id"])
    assert f"\r\nX-Request-ID: {problem['request_id']}\r\n".encode() in head + b"\r\n"
    assert (client.wire.closed, client.inner.heard, client.inner.lost) == ("clean", b"", [ConnectionDone])


def test_plain_http_is_told_so_once(contexts):
    client = Client(contexts)
    client.wire.stop_reading()
    request = b"GET / HTTP/1.1\r\n\r\n"
    client.server.dataReceived(request)
    client.server.dataReceived(request)
    client.wire.start_reading()
    assert client.wire.received.count(b"HTTP/1.1 400") == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 20])
def test_plain_http_is_told_so_however_it_is_cut(contexts, size):
    client = Client(contexts)
    request = b"GET /v1/users HTTP/1.1\r\nHost: id.test\r\nx-request-id: mine.1\r\n\r\n"
    for piece in cut_at([size])(request[:-1]):
        client.wire.send(piece)
    assert (client.wire.received, client.wire.closed) == (b"", "")
    client.wire.send(request[-1:])
    assert client.wire.received.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nX-Request-ID: mine.1\r\n" in client.wire.received
    assert b'"request_id":"mine.1"}' in client.wire.received
    assert client.wire.closed == "clean"


@pytest.mark.parametrize("given", [b"a b", b"x" * 129, b'"', b"one\r\nX-Request-ID: two", b""])
def test_a_plain_request_s_id_is_a_new_one_where_its_own_is_not_well_formed(contexts, given):
    client = Client(contexts)
    client.wire.send(b"GET / HTTP/1.1\r\nX-Request-ID: " + given + b"\r\n\r\n")
    assert re.search(rb"\r\nX-Request-ID: [0-9a-f]{32}\r\n", client.wire.received)


def test_a_plain_request_s_body_has_no_say(contexts):
    client = Client(contexts)
    client.wire.send(b"POST / HTTP/1.1\r\nX-Request-ID: mine\r\n\r\nX-Request-ID: yours\r\n\r\n")
    assert b"\r\nX-Request-ID: mine\r\n" in client.wire.received


@pytest.mark.parametrize("size", [100, 1000, 40_000])
def test_a_plain_head_without_end_is_answered_at_a_bound(contexts, size):
    client = Client(contexts)
    client.wire.send(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(plain_http._LARGEST // size):
        if not client.wire.closed:
            client.wire.send(b"x" * size)
    client.wire.send(b"x" * size)
    assert client.wire.received.startswith(b"HTTP/1.1 400 ")
    assert client.wire.closed == "clean"


def told_so(client):
    """Whether the client has its answer, and its connection ended well."""
    return client.wire.received.startswith(b"HTTP/1.1 400 ") and client.wire.closed == "clean"


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / http/1.1",
        b"GET  / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"get / HTTP/1.1",
        b"GO / HTTP/1.1",
        b"X / HTTP/1.1",
        b"M-SEARCH * HTTP/1.1",
        b"BASELINE-CONTROL / HTTP/1.1",
        b"CONNECT id.test:443 HTTP/1.1",
        b"GET http://id.test/ HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"\r\nGET / HTTP/1.1",
        b"\n\r\n\r\n\r\nGET / HTTP/1.1",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 5, 50_000])
@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
def test_plain_http_of_any_kind_is_told_so(contexts, line, size, newline):
    client = Client(contexts)
    request = line + newline + b"X-Request-ID: mine.1" + newline + newline
    for piece in cut_at([size])(request[:-1]):
        client.wire.send(piece)
    assert (client.wire.received, client.wire.closed) == (b"", "")
    client.wire.send(request[-1:])
    assert told_so(client)
    assert b"\r\nX-Request-ID: mine.1\r\n" in client.wire.received


@pytest.mark.parametrize("size", [1, 50_000])
def test_the_preface_of_http_2_is_told_so(contexts, size):
    client = Client(contexts)
    for piece in cut_at([size])(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        if not client.wire.closed:
            client.wire.send(piece)
    assert told_so(client)


@pytest.mark.parametrize("request_line", [b"GET /\r\n", b"GET /old\n", b"\r\nGET http://id.test/\r\n"])
@pytest.mark.parametrize("size", [1, 50_000])
def test_a_request_without_a_version_has_no_head_to_wait_for(contexts, request_line, size):
    client = Client(contexts)
    for piece in cut_at([size])(request_line):
        client.wire.send(piece)
    assert told_so(client)


@pytest.mark.parametrize(
    "data",
    [
        b"GETTING",
        b"GET " + b"x" * 40_000,
        b"GET /\0 HTTP/1.1\r\n",
        b"GET \x16\x03\x01\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"EHLO mail.id.test\r\n",
        b"OPTIONS sip:nm SIP/2.0\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\r\n\r\n\r\n\x16\x03\x01\0\5",
        b"x" * 33 + b" / HTTP/1.1\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 5, 50_000])
def test_what_only_begins_like_a_plain_request_gets_no_answer_in_http(contexts, data, size):
    client = Client(contexts)
    for piece in cut_at([size])(data + b"." * 40_000 if len(data) < 9 else data):
        if not client.wire.closed:
            client.wire.send(piece)
    assert client.wire.closed == "clean"
    assert not client.wire.received.startswith(b"H")


def test_lines_before_a_plain_request_are_not_kept(contexts):
    client = Client(contexts)
    for _ in range(10):
        client.wire.send(b"\r\n" * plain_http._LARGEST)
    assert (client.wire.closed, client.server._plain._head) == ("", b"")
    client.wire.send(b"GET / HTTP/1.1\r\n\r\n")
    assert told_so(client)


@pytest.mark.parametrize(
    "line", [b"GET " + b" " * 20_000, b"GET a" + b" HTTP/" * 4000, b"GET a" + b" HTTP/1" * 4000 + b"\0"]
)
def test_no_line_takes_long_to_tell_from_a_request(line):
    start = process_time()
    for _ in range(5):
        assert plain_http.PlainRequest(RefusalWriter()).feed(line) is not None
    assert process_time() - start < 0.5


@pytest.mark.parametrize(
    "head", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: id.test\r\nX", b"get /", b"\r\nGET a HTTP/1.1\r\n"]
)
def test_a_plain_request_that_never_ends_is_told_so_at_the_deadline(contexts, head):
    client = Client(contexts)
    client.wire.send(head)
    assert (client.wire.closed, client.wire.received) == ("", b"")
    client.inner.transport.loseConnection()
    client.clock.advance(0)
    assert told_so(client)
    assert client.inner.lost == [ConnectionDone]


@pytest.mark.parametrize("head", [b"GET", b"GETTI", b"GET some", b"hello you", b"\r\n" * 10])
def test_what_is_not_clearly_a_plain_request_is_cut_by_the_deadline(contexts, head):
    client = Client(contexts)
    client.wire.send(head)
    assert client.wire.closed == ""
    client.inner.transport.loseConnection()
    client.clock.advance(0)
    assert (client.wire.closed, client.wire.received, client.inner.lost) == ("reset", b"", [ConnectionAborted])


def test_the_protocol_that_alpn_chose(contexts):
    client = Client(contexts, alpn=[b"http/1.1"])
    assert client.inner.transport.negotiatedProtocol is None
    assert client.pump().inner.transport.negotiatedProtocol == b"http/1.1"
    client.hang_up(ConnectionDone())
    assert client.inner.transport.negotiatedProtocol is None


def test_without_alpn_no_protocol_is_negotiated(connect):
    assert connect().inner.transport.negotiatedProtocol is None


def test_a_client_s_certificate(connect):
    client = connect()
    assert client.inner.transport.getPeerCertificate() is None
    client.hang_up(ConnectionDone())
    assert client.inner.transport.getPeerCertificate() is None


def resumed(client):
    """Whether the handshake took up an earlier session; pyOpenSSL has no word for it."""
    return bool(SSL._lib.SSL_session_reused(client.tls._ssl))


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_session_is_resumed_by_its_ticket(connect, version):
    first = connect(version=version)
    first.inner.transport.write(b"x")
    first.pump()
    assert not resumed(first)
    again = connect(version=version, after=first)
    assert resumed(again)
    again.inner.transport.write(b"back")
    assert again.pump().heard == b"back"


def test_renegotiation_is_refused_at_once(connect):
    client = connect(version=SSL.TLS1_2_VERSION)
    client.tls.renegotiate()
    with pytest.raises(SSL.WantReadError):
        client.tls.do_handshake()
    client.flush()
    # The refusal (a warning alert) is not kept until there is something else to send.
    assert client.wire.received[:1] == b"\x15"
    client.tls.bio_write(client.wire.received)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.tls.do_handshake()
    assert client.inner.handshakes == 1


# -- the end


def test_a_close_says_goodbye(connect):
    client = connect()
    client.inner.transport.write(b"last")
    assert not client.inner.transport.disconnecting
    client.inner.transport.loseConnection()
    client.inner.transport.loseConnection()
    assert client.inner.transport.disconnecting
    client.pump()
    assert (client.heard, client.ended, client.wire.closed) == (b"last", "close_notify", "clean")
    assert client.inner.lost == [ConnectionDone]


def test_a_producer_finishes_before_the_close(connect):
    client = connect()
    transport, producer = client.inner.transport, Producer()
    transport.registerProducer(producer, True)
    transport.loseConnection()
    transport.write(b"more")
    assert (client.pump().heard, client.ended, client.wire.closed) == (b"more", None, "")
    transport.unregisterProducer()
    transport.unregisterProducer()
    client.pump()
    assert (client.ended, client.wire.closed, producer.told) == ("close_notify", "clean", [])


def test_a_slow_client_pauses_the_producer(connect):
    client = connect()
    transport, producer = client.inner.transport, Producer()
    transport.registerProducer(producer, True)
    client.wire.stop_reading()
    transport.write(pattern(300_000))
    assert producer.told == ["pause"]
    client.wire.start_reading()
    assert (producer.told, client.pump().heard) == (["pause", "resume"], pattern(300_000))


def test_a_lost_connection_stops_the_producer(connect):
    client = connect()
    producer, late = Producer(), Producer()
    client.inner.transport.registerProducer(producer, True)
    client.hang_up(ConnectionLost())
    client.inner.transport.registerProducer(late, True)
    assert (producer.told, late.told) == (["stop"], ["stop"])


class Closer(Producer):
    """Closes as soon as it is paused, as one that gives slow clients up does."""

    def __init__(self, transport):
        super().__init__()
        self.transport = transport

    def pauseProducing(self):
        super().pauseProducing()
        self.transport.write(b"bye")
        self.transport.unregisterProducer()
        self.transport.loseConnection()


@pytest.mark.parametrize("size", [100_000, 3 * MIB])
def test_a_producer_that_closes_when_paused_loses_nothing(connect, size):
    client = connect()
    data = pattern(size)
    client.inner.transport.registerProducer(Closer(client.inner.transport), True)
    client.wire.stop_reading()
    client.inner.transport.write(data)
    client.wire.start_reading()
    client.pump()
    assert client.heard == data + b"bye"
    assert (client.ended, client.wire.closed) == ("close_notify", "clean")


def test_reading_pauses_and_goes_on(connect):
    client = connect()
    client.inner.transport.pauseProducing()
    client.say(b"later").pump()
    assert client.inner.heard == b""
    client.inner.transport.resumeProducing()
    client.pump()
    assert client.inner.heard == b"later"


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_client_s_goodbye_closes(connect, version):
    client = connect(version=version)
    client.say(b"last")
    client.tls.shutdown()
    client.pump()
    assert (client.inner.heard, client.ended, client.wire.closed) == (b"last", "close_notify", "clean")
    assert client.inner.lost == [ConnectionDone]


def test_what_is_written_after_the_client_s_goodbye_is_dropped_and_what_was_before_arrives(connect):
    client = connect()
    client.wire.stop_reading()
    client.inner.transport.write(b"before")
    client.tls.shutdown()
    client.flush()
    client.inner.transport.write(b"after")
    client.inner.transport.writeSequence([pattern(100_000)])
    client.wire.start_reading()
    client.pump()
    assert (client.heard, client.ended, client.wire.closed) == (b"before", "close_notify", "clean")


def test_a_client_s_goodbye_ends_a_producer(connect):
    client = connect()
    producer = Producer()
    client.inner.transport.registerProducer(producer, True)
    client.tls.shutdown()
    client.pump()
    assert (client.wire.closed, client.inner.lost, producer.told) == ("clean", [ConnectionDone], ["stop"])
    client.inner.transport.unregisterProducer()


def test_a_connection_cut_short_is_lost(connect):
    client = connect()
    client.say(b"half")
    records = client.pending()
    client.wire.send(records[:-1])
    client.hang_up(ConnectionLost())
    assert (client.inner.heard, client.inner.lost) == (b"", [ConnectionLost])


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_forged_record_ends_the_connection_with_an_alert(connect, version):
    client = connect(version=version)
    client.say(b"good").say(b"forged")
    records = client.pending()
    client.wire.send(records[:-1] + bytes([records[-1] ^ 1]))
    client.pump()
    assert (client.inner.heard, client.wire.closed, client.inner.lost) == (b"good", "clean", [ConnectionDone])
    assert "bad record mac" in client.ended


def test_an_abort_ends_at_once(connect):
    client = connect()
    client.wire.stop_reading()
    client.inner.transport.write(b"never")
    client.inner.transport.abortConnection()
    client.inner.transport.abortConnection()
    client.clock.advance(0)
    client.wire.start_reading()
    client.pump()
    assert (client.heard, client.wire.closed, client.inner.lost) == (b"", "reset", [ConnectionAborted])


def test_it_reads_on_after_it_has_finished_writing(connect):
    client = connect()
    client.inner.transport.write(b"done")
    client.inner.transport.loseWriteConnection()
    client.inner.transport.write(b"dropped")
    client.pump()
    assert (client.heard, client.ended, client.wire.half_closed, client.wire.closed) == (
        b"done",
        "close_notify",
        True,
        "",
    )
    client.say(b"heard still").pump()
    assert client.inner.heard == b"heard still"
    client.inner.transport.loseConnection()
    client.clock.advance(0)
    assert (client.wire.closed, client.inner.lost) == ("clean", [ConnectionDone])


def test_nothing_arrives_after_a_close(connect):
    client = connect(Inner(then=lambda transport: transport.loseConnection()))
    client.say(b"one").flush()
    client.server.dataReceived(client.say(b"two").pending())
    assert client.inner.heard == b"one"


def test_nothing_arrives_while_a_close_waits_for_its_producer(connect):
    client = connect()
    client.inner.transport.registerProducer(Producer(), True)
    client.inner.transport.loseConnection()
    client.say(b"late").pump()
    assert (client.inner.heard, client.wire.closed) == (b"", "")


def test_use_after_the_end_is_silent(connect):
    client = connect()
    client.hang_up(ConnectionLost())
    transport = client.inner.transport
    transport.write(b"x")
    transport.write(pattern(100_000))
    transport.writeSequence([b"y"])
    transport.loseWriteConnection()
    transport.loseConnection()
    transport.abortConnection()
    transport.pauseProducing()
    transport.resumeProducing()
    transport.stopProducing()
    transport.unregisterProducer()
    client.server.dataReceived(b"late")
    assert client.inner.lost == [ConnectionLost]


@pytest.mark.parametrize("size", [10, 200_000, (1 << 19) + 70_000, 3 * MIB])
@pytest.mark.parametrize("end", ["loseConnection", "abortConnection", "lost"])
@pytest.mark.parametrize("answer", [0, 1, 600_000])
def test_a_protocol_may_end_while_it_reads(connect, size, end, answer):
    def then(transport):
        transport.write(pattern(answer))
        if end == "lost":
            client.server.transport.lose(ConnectionLost())
        else:
            getattr(transport, end)()
        transport.write(b"ignored" if end != "loseConnection" else b"")

    client = connect(Inner(then=then))
    records = client.say(pattern(size)).pending()
    client.server.dataReceived(records)  # all in one read, beyond what one buffer holds
    assert client.inner.reads == 1
    assert pattern(size).startswith(client.inner.heard)
    client.pump()
    assert client.inner.lost == [
        {"loseConnection": ConnectionDone, "abortConnection": ConnectionAborted, "lost": ConnectionLost}[end]
    ]
    if end == "loseConnection":
        assert (client.heard, client.ended) == (pattern(answer), "close_notify")


def test_a_protocol_may_write_while_it_reads_more_than_the_buffer_holds(connect):
    def then(transport):
        transport.write(pattern(700_000))

    client = connect(Inner(then=then))
    data = pattern(3 * MIB)
    client.server.dataReceived(client.say(data).pending())
    assert client.inner.heard == data
    assert client.pump().heard == pattern(700_000) * client.inner.reads


def test_two_connections_do_not_share_what_they_read(connect):
    other = connect()
    client = connect(Inner(then=lambda transport: other.server.dataReceived(records)))
    records = other.say(b"B" * 300_000).pending()
    client.say(b"A" * 200_000)
    client.server.dataReceived(client.pending())
    assert (client.inner.heard, other.inner.heard) == (b"A" * 200_000, b"B" * 300_000)


# -- one connection's errors are its own


def failed_handshake(contexts):
    Client(contexts).wire.send(b"\xff" * 600)


def forged(contexts):
    client = Client(contexts).pump()
    records = client.say(b"forged").pending()
    client.server.dataReceived(records[:-1] + bytes([records[-1] ^ 1]))


def written_too_late(contexts):
    client = Client(contexts).pump()
    SSL._lib.SSL_shutdown(client.server._ssl)
    client.inner.transport.write(b"OpenSSL refuses this")
    client.inner.transport.writeSequence([pattern(100_000)])


def closed_twice(contexts):
    client = Client(contexts).pump()
    client.inner.transport.loseWriteConnection()
    client.inner.transport.loseConnection()


@pytest.mark.parametrize("fail", [failed_handshake, forged, written_too_late, closed_twice])
def test_an_error_on_one_connection_never_reaches_another(contexts, fail):
    ready, fresh = Client(contexts).pump(), Client(contexts)
    fail(contexts)
    assert SSL._lib.ERR_peek_error() == 0
    ready.say(b"fine").pump()
    ready.inner.transport.write(b"too")
    assert (ready.inner.heard, ready.pump().heard, ready.inner.lost) == (b"fine", b"too", [])
    assert fresh.pump().ready


def test_errors_that_others_have_left_are_not_taken_for_its_own(contexts):
    alone, ready, fresh = Client(contexts).pump(), Client(contexts).pump(), Client(contexts)
    alone.say(b"fine")
    ready.say(b"fi")
    ready.say(b"ne")  # two records in one read: OpenSSL is asked whether there is a third
    for client in (alone, ready, fresh):
        client.take()
        records = client.pending()
        SSL._lib.ERR_put_error(20, 0, 193, b"elsewhere.c", 1)
        client.server.dataReceived(records)
    for client in (alone, ready):
        assert (client.inner.heard, client.inner.lost) == (b"fine", [])
    assert fresh.pump().ready


# -- memory


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc's mallinfo2")
def test_idle_connections_keep_no_big_buffers(contexts):
    clients = [Client(contexts).pump() for _ in range(40)]
    piece, down = b"u" * 16384, b"d" * MIB

    def transfer(client):
        # Taken out piece by piece, so that the client's own OpenSSL keeps little.
        client.server.dataReceived(b"".join([client.say(piece).pending() for _ in range(16)]))
        client.inner.heard = b""
        client.inner.transport.write(down)
        client.wire.received = b""

    before = allocated()
    for client in clients:
        transfer(client)
    # The client's side holds a memory BIO of 22 KiB. One that has seen the upload whole would hold 340 KiB of it, and
    # those of its largest record 22 in each direction.
    assert allocated() - before < 40 * 40 * 1024


class Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]


def allocated():
    """How many bytes malloc has given out and not got back, small (`uordblks`) and large (`hblkhd`)."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return info.field7 + info.field4


@pytest.mark.parametrize("how", ["lost", "goodbye", "abort", "half open", "garbage", "early"])
def test_no_cycle_keeps_a_lost_connection(contexts, how):
    gc.collect()
    gc.disable()
    try:
        client = Client(contexts)
        inner, server = client.inner, weakref.ref(client.server)
        tls = weakref.ref(client.server._connection)
        if how in ("lost", "goodbye", "abort"):
            client.pump()
            client.inner.transport.write(b"x" * 100_000)
            client.say(b"y" * 100_000).pump()
        if how == "goodbye":
            client.tls.shutdown()
            client.pump()
        elif how == "abort":
            client.inner.transport.abortConnection()
            client.clock.advance(0)
        elif how == "garbage":
            client.wire.send(b"\xff" * 100)
        else:
            if how == "early":
                client.inner.transport.write(b"early")
            client.hang_up(ConnectionLost())
        assert len(inner.lost) == 1
        assert tls() is None
        # What the reactor and the protocol above drop with the connection.
        client.wire.near.protocol = inner.transport = client.server = None
        assert server() is None
    finally:
        gc.enable()


# -- what is below, and the factory


def test_it_passes_on_what_is_asked_of_the_connection(connect):
    client = connect()
    transport, below = client.inner.transport, client.server.transport
    below.handle = object()
    assert (transport.getPeer(), transport.getHost()) == (below.getPeer(), below.getHost())
    assert transport.getHandle() is below.handle
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    assert (below.no_delay, transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (True, True, False)


class Counted(Factory):
    """Knows how often it has been started and stopped."""

    noisy = False

    def __init__(self, protocol):
        self.made = protocol
        self.steps = []

    def startFactory(self):
        self.steps.append("start")

    def stopFactory(self):
        self.steps.append("stop")

    def buildProtocol(self, addr):
        return self.made


def test_the_factory_wraps_another(contexts):
    inner = Inner()
    wrapped = Counted(inner)
    factory = over_tls(contexts, wrapped)
    assert isinstance(factory, TLSFactory)
    factory.doStart()
    protocol = factory.buildProtocol(None)
    factory.doStop()
    assert isinstance(protocol, TLSTransport)
    assert wrapped.steps == ["start", "stop"]
    assert over_tls(contexts, Counted(None)).buildProtocol(None) is None


class Bare:
    """An OpenSSL connection of a pyOpenSSL that calls its own things otherwise."""


@implementer(IOpenSSLServerConnectionCreator)
class Elsewhere:
    """Contexts whose connections are such."""

    def serverConnectionForTLS(self, protocol):
        return Bare()


CALLS = [*layer.CALLS, *stream.CALLS]


@pytest.mark.parametrize("name", CALLS)
def test_without_openssl_s_own_calls_twisted_s_tls_serves(contexts, monkeypatch, name):
    calls = {known: getattr(SSL._lib, known) for known in CALLS if known != name}
    monkeypatch.setattr(layer, "lib", type("Lib", (), {known: staticmethod(call) for known, call in calls.items()}))
    assert isinstance(over_tls(contexts, Counted(Inner())), TLSMemoryBIOFactory)


@pytest.mark.parametrize("name", ["lib", "ffi"])
def test_without_the_bindings_twisted_s_tls_serves(contexts, monkeypatch, name):
    monkeypatch.setattr(layer, name, None)
    assert isinstance(over_tls(contexts, Counted(Inner())), TLSMemoryBIOFactory)


def test_without_a_connection_s_own_objects_twisted_s_tls_serves():
    assert isinstance(over_tls(Elsewhere(), Counted(Inner())), TLSMemoryBIOFactory)


@pytest_twisted.ensureDeferred
async def test_the_fallback_really_serves(contexts, monkeypatch):
    client = Client(contexts)
    monkeypatch.setattr(layer, "lib", None)
    inner = Inner(then=lambda transport: transport.write(b"pong"))
    protocol = over_tls(contexts, Counted(inner)).buildProtocol(None)
    client.server, client.clock = protocol, Clock()
    client.wire = join(client.clock, protocol, peer="192.0.2.1")
    client.pump()
    client.say(b"ping").pump()
    await deferLater(reactor, 0, lambda: None)  # Twisted's gathers small writes for a turn
    client.pump()
    assert (inner.heard, client.heard) == (b"ping", b"pong")
    client.hang_up(ConnectionDone())


# -- another client: openssl's own


class Shell(ProcessProtocol):
    """`openssl s_client`, fed by hand."""

    def __init__(self):
        self.printed = b""
        self.waiting = []
        self.ended = Deferred()

    def outReceived(self, data):
        self.printed += data
        self._look()

    errReceived = outReceived

    def processEnded(self, reason):
        self.ended.callback(None)
        self._look()

    def _look(self):
        for text, deferred in self.waiting[:]:
            if text in self.printed:
                self.waiting.remove((text, deferred))
                deferred.callback(None)

    def until(self, text):
        deferred = Deferred().addTimeout(20, reactor)
        self.waiting.append((text, deferred))
        self._look()
        return deferred


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl's s_client")
@pytest_twisted.ensureDeferred
async def test_a_client_may_change_its_keys(contexts):
    inner = Inner(then=lambda transport: transport.write(b"<" + inner.heard.strip() + b">"))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(over_tls(contexts, Counted(inner)))
    shell = Shell()
    command = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{port.getHost().port}"]
    process = reactor.spawnProcess(shell, shutil.which("openssl"), command)
    try:
        await shell.until(b"Verify return code")
        process.write(b"one\n")
        await shell.until(b"<one>")
        process.write(b"K\n")  # new keys both ways
        await shell.until(b"KEYUPDATE")
        process.write(b"two\n")
        await shell.until(b"<one\ntwo>")
        process.write(b"Q\n")
        await shell.ended
    finally:
        await port.stopListening()
    assert inner.heard == b"one\ntwo\n"


# -- what clients may ask of TLS itself


class KeyChanger:
    """Makes a TLS 1.3 client's records by hand (RFC 8446 sections 4.6.3, 5.2 and 7.2), for OpenSSL's clients are too
    polite to ask for new keys without end."""

    def __init__(self, contexts):
        lines = []
        self.client = Client(contexts, version=SSL.TLS1_3_VERSION, keys=lines).pump()
        assert self.client.tls.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
        (line,) = [line for line in lines if line.startswith(b"CLIENT_TRAFFIC_SECRET_0 ")]
        self.secret = bytes.fromhex(line.split()[2].decode())
        self.sequence = 0

    def expand(self, label, size):
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA256(), size, info).derive(self.secret)

    def record(self, kind, data):
        plain = data + bytes([kind])
        header = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self.expand(b"iv", 12), "big") ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        return header + AESGCM(self.expand(b"key", 16)).encrypt(nonce, plain, header)

    def update(self):
        """New keys, which the server is asked to answer with its own."""
        record = self.record(22, b"\x18\0\0\1\1")
        self.secret, self.sequence = self.expand(b"traffic upd", 32), 0
        return record


@pytest.mark.parametrize("and_data", [False, True], ids=["alone", "between requests"])
def test_who_asks_for_new_keys_without_end_is_cut_off(contexts, and_data):
    changer = KeyChanger(contexts)
    wire, inner = changer.client.wire, changer.client.inner
    inner.then = lambda transport: transport.write(b"ok")
    wire.stop_reading()
    sent = 0
    while not wire.closed and sent < 10_000:
        updates = b"".join(changer.update() for _ in range(100))
        wire.send(updates + changer.record(23, b"?") if and_data else updates)
        sent += 100
    assert (wire.closed, inner.lost) == ("reset", [ConnectionAborted])
    assert sent == 700  # 27 bytes for each answer: 16 KiB


def test_who_asks_for_new_keys_now_and_then_is_served(contexts):
    changer = KeyChanger(contexts)
    for _ in range(100):
        changer.client.wire.send(changer.update() + changer.record(23, b"."))
    assert (changer.client.inner.heard, changer.client.wire.closed) == (b"." * 100, "")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl's s_client")
@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("size", [512, 513, 16384, 700_000])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_client_may_ask_for_small_records(contexts, version, size):
    def answer(transport):
        transport.write(b"\xff" * size)
        transport.loseConnection()

    factory = over_tls(contexts, Counted(Inner(then=answer)))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    shell = Shell()
    command = ["openssl", "s_client", "-quiet", version, "-maxfraglen", "512"]
    command += ["-connect", f"127.0.0.1:{port.getHost().port}"]
    process = reactor.spawnProcess(shell, shutil.which("openssl"), command)
    try:
        process.write(b"go\n")
        await shell.ended
    finally:
        await port.stopListening()
    assert shell.printed.count(b"\xff") == size


def test_finished_writing_before_the_handshake_is_said_after_it(contexts):
    client = Client(contexts)
    transport = client.inner.transport
    transport.write(b"first")
    transport.loseWriteConnection()
    transport.write(b"too late")
    client.pump()
    assert (client.heard, client.ended, client.wire.half_closed, client.wire.closed) == (
        b"first",
        "close_notify",
        True,
        "",
    )
    client.say(b"more").pump()
    assert client.inner.heard == b"more"


def test_what_is_written_after_a_close_before_the_handshake_is_dropped(contexts):
    client = Client(contexts)
    client.inner.transport.write(b"first")
    client.inner.transport.loseConnection()
    client.inner.transport.write(b"too late")
    client.pump()
    assert (client.heard, client.ended, client.wire.closed) == (b"first", "close_notify", "clean")


class Headers(bytes):
    """Counts how often single bytes of it are looked at."""

    looked = 0

    def __getitem__(self, key):
        self.looked += isinstance(key, int)
        return bytes.__getitem__(self, key)


def test_the_smallest_records_are_not_all_followed(contexts):
    client = Client(contexts)
    data = Headers(1 << 18)
    client.wire.send(data)
    assert client.wire.closed == "clean"
    assert 0 < data.looked < 2000


# -- turns


class Looks(EarlyReads):
    """Counts how often services are looked at."""

    count = 0

    def look(self):
        self.count += 1
        super().look()


def test_services_are_looked_at_behind_a_read_with_which_enough_requests_were_passed_on(contexts):
    looks = Looks()
    looks.most = 2

    def pass_on(transport):
        assert not looks.count
        looks.sent += 1

    client = Client(contexts, Inner(pass_on)).pump()
    client.server.turns = Turns([].append)
    client.server.turns.early = looks
    client.say(b"first").pump()
    assert not looks.count
    client.say(b"second").pump()
    assert looks.count == 1
    assert not looks.sent


class Pausing(Inner):
    """Pauses with what it gets, as a channel does whose client does not take its answers."""

    def dataReceived(self, data):
        super().dataReceived(data)
        self.transport.pauseProducing()


@pytest.fixture
def hasty(contexts):
    """Makes clients whose gateway has had its slice as soon as it looks at the clock, and its reactor's turns."""

    def make(inner=None):
        calls = []
        now = itertools.count()
        client = Client(contexts, inner).pump()
        client.server.turns = Turns(calls.append, lambda: float(next(now)))
        return client, calls

    return make


SMALL = b"x" * 50


def small_records(client, count):
    """As many records of `SMALL`, in one piece."""
    records = []
    for _ in range(count):
        client.say(SMALL)
        records.append(client.pending())
    return b"".join(records)


def test_a_read_of_many_records_is_a_slice_a_turn(hasty):
    client, calls = hasty()
    client.wire.near.arrive(small_records(client, 2000))
    assert 0 < len(client.inner.heard) < 2000 * len(SMALL)
    assert client.wire.near.paused
    turns = 0
    while calls:
        turns += 1
        calls.pop(0)()
    assert turns > 2
    assert client.inner.heard == SMALL * 2000
    assert not client.wire.near.paused


def test_what_comes_while_records_wait_comes_after_them(hasty):
    client, calls = hasty()
    client.wire.near.arrive(small_records(client, 2000))
    client.say(b"last")
    client.server.dataReceived(client.pending())
    while calls:
        calls.pop(0)()
    assert client.inner.heard == SMALL * 2000 + b"last"


def test_nothing_is_delivered_while_the_protocol_above_is_paused(hasty):
    client, calls = hasty(Pausing())
    client.wire.near.arrive(small_records(client, 2000))
    heard = len(client.inner.heard)
    while calls:
        calls.pop(0)()
    assert len(client.inner.heard) == heard
    assert client.wire.near.paused
    while len(client.inner.heard) < 2000 * len(SMALL):
        client.server.resumeProducing()
        assert calls
        while calls:
            calls.pop(0)()
    assert client.inner.heard == SMALL * 2000
    client.server.resumeProducing()
    assert not client.wire.near.paused


@pytest.mark.parametrize("reason", [ConnectionDone(), ConnectionLost()])
def test_a_client_that_is_gone_has_no_further_turn(hasty, reason):
    client, calls = hasty()
    client.wire.near.arrive(small_records(client, 2000))
    heard = client.inner.heard
    client.hang_up(reason)
    while calls:
        calls.pop(0)()
    assert client.inner.heard == heard


# -- what comes when the reactor's turn is over


@pytest.fixture
def crowded(contexts):
    """Makes clients whose reactor's turn is over, and its later turns."""

    def make(inner=None, shaken=True):
        calls, now = [], [0.0]
        client = Client(contexts, inner)
        if shaken:
            client.pump()
        turns = client.server.turns = Turns(calls.append, lambda: now[0])
        assert not turns.over()
        now[0] += 2 * ARRIVALS
        return client, calls

    return make


def take_turns(calls):
    while calls:
        calls.pop(0)()


def test_a_record_that_comes_late_in_a_turn_is_read_in_a_later_one(crowded):
    client, calls = crowded()
    client.say(b"hello")
    client.wire.near.arrive(client.pending())
    assert client.inner.heard == b""
    assert client.wire.near.paused
    take_turns(calls)
    assert client.inner.heard == b"hello"
    assert not client.wire.near.paused


def test_records_in_pieces_are_read_in_their_order_whenever_their_turn_comes(crowded):
    client, calls = crowded()
    records = small_records(client, 20)
    for position in range(0, len(records), 7):
        client.server.dataReceived(records[position : position + 7])
        if position % 5 == 0:
            take_turns(calls)
    take_turns(calls)
    assert client.inner.heard == SMALL * 20


def test_a_handshake_that_comes_late_in_a_turn_is_answered_in_a_later_one(crowded):
    client, calls = crowded(shaken=False)
    client.take()
    client.wire.near.arrive(client.pending())
    assert client.wire.received == b""
    take_turns(calls)
    assert client.wire.received
    client.pump()
    assert client.ready


def test_a_handshake_does_not_wait_with_what_is_little(crowded):
    client, _ = crowded(shaken=False)
    client.take()
    client.wire.near.arrive(client.pending())
    turns = client.server.turns
    served = []
    for number in range(10):
        turns.arrived(1, "somebody", lambda number=number: served.append(number))
    turns._serve(turns._arrived, ARRIVALS)
    assert served == list(range(10))
    assert client.wire.received == b""


def test_what_comes_late_waits_while_the_protocol_above_is_paused(crowded):
    client, calls = crowded()
    client.say(b"hello")
    client.wire.near.arrive(client.pending())
    client.server.pauseProducing()
    take_turns(calls)
    assert client.inner.heard == b""
    client.server.resumeProducing()
    take_turns(calls)
    assert client.inner.heard == b"hello"
