"""TLS towards services in memory: what a service may ask of TLS itself, and what is left after the end."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from koder_gateway.reactor.turns import Turns
from koder_gateway.tls_bio import records as layer
from koder_gateway.upstream import tls_endpoint
from koder_gateway.upstream.openssl_transport import CALLS, OpenSSLTransport, transport_class
from koder_gateway.upstream.tls_endpoint import HandshakeError, HandshakeTimeout, SecureEndpoint
from koder_gateway.upstream.tls_transport import SecureTransport, UncleanCloseError
from koder_gateway.upstream.trust import read_trust
from tests.kit.authority import Authority
from tests.kit.memory import Peer, PlainTransport

NAME = "identity.test"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=[OpenSSLTransport, SecureTransport], ids=["fast", "public"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tls_endpoint, "transport_class", lambda connection: request.param)
    return request.param


class Above(Protocol):
    """The connection to a service."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        assert not self.lost
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason)


class Producer:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Wire:
    """An endpoint whose connections are in memory; `far` is the service's end of the only one."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.far = Peer(self.reactor)
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        self.protocol = factory.buildProtocol(None)
        transport = PlainTransport(self.reactor, self.far, "192.0.2.1", "192.0.2.2")
        transport.protocol = self.protocol
        self.protocol.makeConnection(transport)
        return succeed(self.protocol)


class Service:
    """A service and a connection to it that is as far as its handshake can get."""

    def __init__(self, authority: Authority, *, version: int = SSL.TLS1_3_VERSION, keys: Any = None) -> None:
        pair = authority.issue(NAME)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
        context.use_certificate_chain_file(str(pair.both))
        context.use_privatekey_file(str(pair.both))
        if keys is not None:
            context.set_keylog_callback(lambda connection, line: keys.append(line))
        self._context = context
        self.wire = Wire()
        self.endpoint = SecureEndpoint(self.wire.reactor, self.wire, NAME, read_trust(authority.path), 2.0)  # type: ignore[arg-type]
        self.connect()

    def connect(self) -> None:
        """Begin a connection, in the place of the one before."""
        self.tls = SSL.Connection(self._context, None)
        self.tls.set_accept_state()
        self.above = Above()
        self.results: list[Any] = []
        factory = Factory()
        factory.buildProtocol = lambda addr: self.above  # type: ignore[method-assign]
        self.wire.far = Peer(self.wire.reactor)
        self.connecting = self.endpoint.connect(factory)
        self.connecting.addBoth(self.results.append)

    @property
    def transport(self) -> Any:
        return self.wire.protocol

    def hear(self) -> bytes:
        """Take what has come from the gateway; its plaintext."""
        data = self.wire.far.take()
        if data:
            self.tls.bio_write(data)
        try:
            return self.tls.recv(1 << 20)
        except SSL.Error:
            return b""

    def say(self) -> None:
        """Send what TLS has to send."""
        with contextlib.suppress(SSL.WantReadError):
            self.wire.far.send(self.tls.bio_read(1 << 20))

    def pump(self) -> Service:
        """Shake hands."""
        for _ in range(4):
            self.hear()
            self.say()
        assert self.results == [self.above]
        return self

    def send(self, data: bytes) -> None:
        """Send plaintext."""
        records = []
        for position in range(0, len(data), 1 << 14):
            self.tls.sendall(data[position : position + (1 << 14)])
            records.append(self.tls.bio_read(1 << 20))
        self.wire.far.send(b"".join(records))


def test_the_fast_way_serves_here(authority: Authority) -> None:
    assert type(Service(authority).transport) is OpenSSLTransport


@pytest.mark.parametrize("name", [*layer.CALLS, *CALLS])
def test_without_one_of_openssl_s_calls_the_public_ones_serve(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Less:
        def __getattr__(self, asked: str) -> Any:
            if asked == name:
                raise AttributeError(asked)
            return getattr(SSL._lib, asked)  # type: ignore[attr-defined]

    monkeypatch.setattr(layer, "lib", Less())
    assert transport_class(SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)) is SecureTransport


def test_without_the_bindings_or_their_objects_the_public_calls_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transport_class(object()) is SecureTransport  # type: ignore[arg-type]
    monkeypatch.setattr(layer, "ffi", None)
    assert transport_class(SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)) is SecureTransport


# -- the handshake


def test_a_handshake_ends_with_its_deadline(authority: Authority, kind: Any) -> None:
    service = Service(authority)
    assert service.results == []
    service.wire.reactor.advance(1.9)
    assert service.results == []
    service.wire.reactor.advance(0.2)
    (failure,) = service.results
    assert failure.check(HandshakeTimeout)
    assert service.wire.far.closed == "reset"
    assert service.wire.reactor.getDelayedCalls() == []


def test_a_handshake_that_nobody_wants_any_more_ends_at_once(authority: Authority, kind: Any) -> None:
    service = Service(authority)
    service.connecting.cancel()
    assert service.wire.far.closed == "reset"
    assert service.wire.reactor.getDelayedCalls() != [] or len(service.results) == 1
    service.wire.reactor.advance(5)
    assert len(service.results) == 1
    assert service.above.transport is None


def test_a_client_that_leaves_costs_nobody_else_a_session(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    service.send(b"hello")
    assert len(service.endpoint.sessions) == 1
    (kept,) = service.endpoint.sessions._kept
    service.endpoint.sessions.keep(*kept)
    service.endpoint.connect(Factory.forProtocol(Above)).addErrback(lambda failure: None).cancel()
    service.wire.reactor.advance(5)
    assert len(service.endpoint.sessions) == 1


ENDS: dict[str, Any] = {
    "here": lambda service: service.transport.abortConnection(),
    "cut while idle": lambda service: service.wire.far.close(),
    "reset while idle": lambda service: service.wire.far.reset(),
    "goodbye": lambda service: (service.tls.shutdown(), service.say()),
}
FAILURES: dict[str, Any] = {
    "cut": lambda service: service.wire.far.close(),
    "reset": lambda service: service.wire.far.reset(),
    "broken": lambda service: service.wire.far.send(b"\x17\x03\x03\x00\x20" + b"z" * 32),
    "unwritable": lambda service: (
        service.transport._connection.set_shutdown(SSL.SENT_SHUTDOWN),
        service.transport.write(b"x"),
    ),
}


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("how", ENDS)
def test_a_session_outlives_its_connection(authority: Authority, kind: Any, version: int, how: str) -> None:
    service = Service(authority, version=version).pump()
    service.send(b"hello")
    service.above.idle = "idle" in how  # type: ignore[attr-defined]
    ENDS[how](service)
    service.wire.reactor.advance(0)
    assert service.above.lost
    # OpenSSL judges the session when it frees the connection.
    del service.wire.protocol
    gc.collect()
    service.connect()
    service.pump()
    assert SSL._lib.SSL_session_reused(service.tls._ssl)  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("how", FAILURES)
def test_a_session_ends_with_a_connection_that_fails(authority: Authority, kind: Any, version: int, how: str) -> None:
    service = Service(authority, version=version).pump()
    service.send(b"hello")
    assert len(service.endpoint.sessions) == 1
    FAILURES[how](service)
    service.wire.reactor.advance(0)
    assert service.above.lost
    assert len(service.endpoint.sessions) == 0


def test_a_connection_that_breaks_within_its_handshake_is_none(authority: Authority, kind: Any) -> None:
    service = Service(authority)
    service.wire.far.reset()
    (failure,) = service.results
    assert failure.check(HandshakeError)
    assert service.wire.reactor.getDelayedCalls() == []


def test_a_handshake_leaves_no_timer(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    assert service.wire.reactor.getDelayedCalls() == []


def test_a_handshake_in_single_bytes(authority: Authority, kind: Any) -> None:
    service = Service(authority)
    for _ in range(4):
        service.hear()
        try:
            data = service.tls.bio_read(1 << 20)
        except SSL.WantReadError:
            continue
        service.wire.far.send_in(bytes([byte]) for byte in data)
    assert service.results == [service.above]


@pytest.mark.parametrize("size", [1, 16384, 16385, (1 << 19) - 1, 1 << 19, (1 << 21) + 3])
def test_every_byte_of_one_write_arrives(authority: Authority, kind: Any, size: int) -> None:
    service = Service(authority).pump()
    data = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
    service.transport.write(data)
    service.tls.bio_write(service.wire.far.take())
    heard = b""
    while len(heard) < size:
        heard += service.tls.recv(1 << 20)
    assert heard == data


@pytest.mark.parametrize("size", [(1 << 19) - 1, 1 << 19, (1 << 20) + 3])
def test_every_byte_of_one_read_arrives(authority: Authority, kind: Any, size: int) -> None:
    service = Service(authority).pump()
    data = b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]
    service.send(data)
    assert service.above.heard == data


# -- the ends


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_goodbye_ends_in_order_and_at_once(authority: Authority, kind: Any, version: int) -> None:
    service = Service(authority, version=version).pump()
    service.tls.sendall(b"the last")
    service.tls.shutdown()
    service.say()
    assert service.above.heard == b"the last"
    (reason,) = service.above.lost
    assert reason.check(ConnectionDone)
    assert service.wire.far.closed == "clean"
    service.hear()
    assert service.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    service.wire.reactor.advance(0)
    assert len(service.above.lost) == 1


def test_an_end_without_goodbye_is_none(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    service.send(b"the last")
    service.wire.far.close()
    (reason,) = service.above.lost
    assert reason.check(UncleanCloseError)
    assert not reason.check(ConnectionDone)


def test_a_goodbye_in_the_midst_of_an_upload_ends_the_upload(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    producer = Producer()
    service.transport.registerProducer(producer, True)
    service.tls.shutdown()
    service.say()
    assert service.above.lost[0].check(ConnectionDone)
    assert service.wire.far.closed == "reset"
    service.wire.reactor.advance(0)
    assert producer.told == []


def test_a_close_waits_for_its_producer_and_says_goodbye(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    producer = Producer()
    service.transport.registerProducer(producer, True)
    service.transport.loseConnection()
    service.transport.write(b"and this")
    assert service.wire.far.closed == ""
    service.transport.unregisterProducer()
    assert service.wire.far.closed == "clean"
    assert service.hear() == b"and this"
    service.hear()
    assert service.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN


def test_finished_writing_it_reads_on(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    service.transport.loseWriteConnection()
    service.transport.write(b"too late")
    assert service.hear() == b""
    assert service.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    service.send(b"still here")
    assert service.above.heard == b"still here"


def test_use_after_the_end_is_silent(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    transport = service.transport
    transport.abortConnection()
    service.wire.reactor.advance(0)
    assert service.above.lost[0].check(ConnectionAborted)
    transport.write(b"x")
    transport.writeSequence([b"x", b"y"])
    transport.dataReceived(b"x")
    transport.pauseProducing()
    transport.resumeProducing()
    transport.stopProducing()
    transport.loseConnection()
    transport.loseWriteConnection()
    transport.abortConnection()
    transport.unregisterProducer()
    producer = Producer()
    transport.registerProducer(producer, True)
    assert producer.told == ["stop"]
    assert transport.getPeerCertificate() is None
    assert transport.negotiatedProtocol is None
    assert transport.settle() is False


def test_a_second_producer_is_refused(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    service.transport.registerProducer(Producer(), True)
    with pytest.raises(RuntimeError, match="never unregistered"):
        service.transport.registerProducer(Producer(), True)


def test_a_slow_service_pauses_the_producer(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    producer = Producer()
    service.transport.registerProducer(producer, True)
    service.wire.far.stop_reading()
    service.transport.write(b"x" * 100_000)
    assert producer.told == ["pause"]
    service.wire.far.start_reading()
    assert producer.told == ["pause", "resume"]


def test_no_cycle_keeps_a_lost_connection(authority: Authority, kind: Any) -> None:
    service = Service(authority).pump()
    service.send(b"hello")
    transport, connection = weakref.ref(service.transport), weakref.ref(service.transport._connection)
    gc.collect()
    gc.disable()
    try:
        service.transport.abortConnection()
        service.wire.reactor.advance(0)
        assert connection() is None
        service.above.transport = None
        # As real transports let go of their protocols.
        service.wire.protocol = service.wire.far.near.protocol = None
        assert transport() is None
    finally:
        gc.enable()


# -- what a service may ask of TLS itself


class KeyChanger:
    """Makes a TLS 1.3 server's records by hand (RFC 8446 sections 4.6.3, 5.2 and 7.2)."""

    def __init__(self, authority: Authority) -> None:
        lines: list[bytes] = []
        self.service = Service(authority, keys=lines)
        for _ in range(4):
            self.service.hear()
            self.service.say()
        (line,) = [line for line in lines if line.startswith(b"SERVER_TRAFFIC_SECRET_0 ")]
        self.secret = bytes.fromhex(line.split()[2].decode())
        # OpenSSL has sent two tickets.
        self.sequence = 2

    def expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA256(), size, info).derive(self.secret)

    def record(self, kind: int, data: bytes) -> bytes:
        plain = data + bytes([kind])
        header = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self.expand(b"iv", 12), "big") ^ self.sequence).to_bytes(12, "big")
        self.sequence += 1
        return header + AESGCM(self.expand(b"key", 16)).encrypt(nonce, plain, header)

    def new_keys(self) -> bytes:
        """A record that asks for new keys both ways."""
        record = self.record(22, b"\x18\x00\x00\x01\x01")
        self.secret, self.sequence = self.expand(b"traffic upd", 32), 0
        return record


def test_a_service_may_change_its_keys(authority: Authority, kind: Any) -> None:
    changer = KeyChanger(authority)
    far, above = changer.service.wire.far, changer.service.above
    far.send(changer.new_keys())
    far.send(changer.record(23, b"new"))
    assert (above.heard, above.lost) == (b"new", [])
    changer.service.transport.write(b"and mine")
    assert changer.service.hear() == b"and mine"


@pytest.mark.parametrize("data", [b"", b"."], ids=["keys alone", "with data"])
def test_a_service_that_asks_for_new_keys_without_end_is_cut_off(
    authority: Authority, kind: Any, data: bytes
) -> None:
    changer = KeyChanger(authority)
    far = changer.service.wire.far
    far.stop_reading()
    for _ in range(2000):
        far.send(changer.new_keys() + (changer.record(23, data) if data else b""))
        if far.closed:
            break
    assert far.closed == "reset"
    assert len(far.near._unsent) < 1 << 15


def test_errors_that_others_have_left_are_not_taken_for_its_own(authority: Authority) -> None:
    service = Service(authority).pump()
    lib, ffi = SSL._lib, SSL._ffi  # type: ignore[attr-defined]
    context = SSL.Context(SSL.TLS_METHOD)
    service.tls.sendall(b"fine")
    records = service.tls.bio_read(1 << 20)
    # What pyOpenSSL's own calls would take away again.
    assert lib.SSL_CTX_use_certificate_chain_file(context._context, ffi.new("char[]", b"/nonexistent")) <= 0
    assert lib.ERR_peek_error()
    service.wire.far.send(records)
    assert (service.above.heard, service.above.lost) == (b"fine", [])


def test_records_that_wait_for_their_turn_come_before_the_end(authority: Authority) -> None:
    service = Service(authority).pump()
    calls: list[Any] = []
    now = itertools.count()
    service.transport.turns = Turns(calls.append, lambda: float(next(now)))
    data = b"".join(number.to_bytes(4, "big") for number in range(50_000))
    service.send(data)
    assert service.wire.far.near.paused
    while not service.above.heard:
        calls.pop(0)()
    assert len(service.above.heard) < len(data)
    service.wire.far.reset()
    assert service.above.heard == data
    (reason,) = service.above.lost
    assert not reason.check(ConnectionDone)
    for call in calls:
        call()
    assert service.above.heard == data


class Kernel:
    """A socket in which these bytes wait; an error or b"" ends them."""

    def __init__(self, *waiting: bytes) -> None:
        self._waiting = list(waiting)

    def recv(self, size: int, flags: int) -> bytes:
        if not self._waiting:
            raise BlockingIOError
        return self._waiting.pop(0)


@pytest.mark.parametrize(
    ("ends", "goes_on"), [([], True), ([b""], False), ([b"\x15\x03\x03\x00\x02\x01\x00"], False)]
)
def test_what_waits_on_an_idle_connection_says_whether_it_goes_on(
    ends: list[bytes], goes_on: bool, authority: Authority, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ticket is no end. An end that was not read would cost the next request its connection."""
    changer = KeyChanger(authority)
    transport = changer.service.transport
    ticket = changer.record(22, b"\x04\x00\x00\x12\x00\x00\x00\x3c\x00\x00\x00\x01\x01\x01\x00\x04abcd\x00\x00")
    kernel = Kernel(ticket, *ends)
    monkeypatch.setattr(transport, "getHandle", lambda: kernel)
    assert transport.settle() is goes_on
    assert not kernel._waiting


def test_a_connection_does_not_keep_the_memory_of_its_handshake(authority: Authority) -> None:
    """OpenSSL's memory BIOs keep that of their fullest moment: the certificate's."""
    service = Service(authority)
    transport = service.transport
    before = transport._incoming, transport._outgoing
    service.pump()
    assert transport._incoming != before[0]
    assert transport._outgoing != before[1]
    service.tls.send(b"one")
    service.say()
    assert service.above.heard == b"one"
    transport.write(b"two")
    assert service.hear() == b"two"
