"""A client's hello as it is read before OpenSSL does, in pieces of any size, and what a session is then tied to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory

from koder_gateway.tls import client_hello
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.client_hello import ClientHello, plain_name
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.factory import TLSFactory


def hello(name, version=0):
    """What OpenSSL's client says first."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    if name:
        client.set_tlsext_host_name(name)
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(1 << 16)


HELLO = hello(b"acme.id.test")


def in_records(data, size):
    """The same hello in records of so many bytes (RFC 8446 section 5.1)."""
    body = data[5:]
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("name", [b"", b"a", b"acme.id.test", b"Acme.ID.test.", b"x" * 63 + b".test", b"\xff\n"])
def test_the_name_is_read_in_one_piece_and_byte_by_byte(name, version):
    said = hello(name, version)
    assert ClientHello().feed(said) == name
    for form in (said, in_records(said, 1), in_records(said, 100)):
        slow = ClientHello()
        for position in range(len(form) - 1):
            assert slow.feed(form[position : position + 1]) is None
        assert slow.feed(form[-1:]) == name


def test_a_hello_of_before_extensions_has_no_name():
    body = b"\3\3" + b"r" * 32 + b"\0" + b"\0\2\0\x2f" + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    assert ClientHello().feed(b"\x16\3\1" + len(message).to_bytes(2, "big") + message) == b""


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"\x15\3\1\0\2\1\0", b"\x16\3\1\0\4\2\0\0\0", b"\x17" + HELLO[1:]],
    ids=["plain", "alert", "another message", "application data"],
)
def test_what_is_no_hello_is_told(data):
    with pytest.raises(ValueError, match="no h"):
        ClientHello().feed(data)


def test_a_hello_that_has_no_end_is_given_up():
    endless = ClientHello()
    record = b"\x16\3\1\x40\0" + b"\1\xff\xff\xff" + b"x" * ((1 << 14) - 4)
    for _ in range(client_hello._LARGEST >> 14):
        assert endless.feed(record) is None
    with pytest.raises(ValueError, match="too large"):
        endless.feed(record)
    assert len(endless._message) + len(endless._records) <= client_hello._LARGEST + len(record)


@given(st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), max_size=4), st.integers(1, 400))
def test_no_hello_of_any_kind_raises_anything_else(changes, size):
    data = bytearray(HELLO)
    for position, value in changes:
        data[position] = value
    reading = ClientHello()
    try:
        for start in range(0, len(data), size):
            name = reading.feed(bytes(data[start : start + size]))
            assert name is None or isinstance(name, bytes)
            if name is not None:
                break
    except (ValueError, IndexError):
        pass


def test_names_are_compared_without_case_and_last_dot():
    assert plain_name(b"Acme.ID.test.") == b"acme.id.test"
    assert plain_name(None) == plain_name(b"") == b""


# -- the connection


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("issued")
    return ServerContexts([self_signed(folder, name) for name in ("a.example", "b.example")])


class Greeter(Protocol):
    def connectionMade(self):
        self.transport.write(b"welcome")


def connect(make, name, context, session=None, piece=1 << 16):
    """A client's connection, after the handshake and a word from the server."""
    # Twisted gathers what is written until the reactor's next turn.
    clock = Clock()
    factory = make(Factory.forProtocol(Greeter), clock)
    server, wire = factory.buildProtocol(None), StringTransport()
    server.makeConnection(wire)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(name)
    if session is not None:
        client.set_session(session)
    said = b""
    for _ in range(4):
        try:
            client.do_handshake()
            said += client.recv(100)
        except SSL.WantReadError:
            pass
        try:
            data = client.bio_read(1 << 16)
        except SSL.WantReadError:
            data = b""
        for start in range(0, len(data), piece):
            server.dataReceived(data[start : start + piece])
        clock.advance(0)
        if wire.value():
            client.bio_write(wire.value())
            wire.clear()
    assert said == b"welcome"
    client.set_shutdown(SSL.SENT_SHUTDOWN)
    return client


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("twisted", [False, True], ids=["own", "twisted"])
@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_a_session_is_tied_to_its_name_whoever_drives_the_handshake(contexts, version, twisted, piece):
    def make(wrapped, clock):
        return TLSMemoryBIOFactory(contexts, False, wrapped, clock) if twisted else TLSFactory(contexts, wrapped)

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)

    def resumed(name, session):
        return SSL._lib.SSL_session_reused(connect(make, name, context, session, piece)._ssl) == 1

    for name, other in ((b"a.example", b"b.example"), (b"b.example", b"a.example")):
        session = connect(make, name, context, piece=piece).get_session()
        assert resumed(name, session)
        session = connect(make, name, context, piece=piece).get_session()
        assert not resumed(other, session)
