"""Connections without what pyOpenSSL does for each: the same as its own, and pyOpenSSL's where that is not known."""

from __future__ import annotations

import contextlib

import pytest
from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from koder_gateway.tls import lean_connection
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.contexts import HTTP_2, ContextOptions, ServerContexts
from koder_gateway.tls.lean_connection import NEWEST, LeanConnection, lean, selected_protocol
from koder_gateway.tls.stream import TLSTransport
from tests.kit.memory import join


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> ServerContexts:
    certificate = self_signed(tmp_path_factory.mktemp("pair"), "acme.id.test")
    return ServerContexts([certificate], options=ContextOptions(protocols=HTTP_2))


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyOpenSSL is of another version than those that are known."""
    monkeypatch.setattr(lean_connection, "LEAN", False)


def shaken(contexts: ServerContexts) -> TLSTransport:
    """A server whose client has completed its handshake."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([b"h2"])
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server = TLSTransport(contexts.serverConnectionForTLS(None), Protocol())  # type: ignore[arg-type]
    wire = join(Clock(), server, peer="192.0.2.1")
    for _ in range(3):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            wire.send(client.bio_read(1 << 16))
        arrived, wire.received = wire.received, b""
        if arrived:
            client.bio_write(arrived)
    return server


def test_it_has_all_that_a_connection_of_pyopenssl_has() -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    ours, theirs = LeanConnection(context), SSL.Connection(context, None)
    for name in vars(theirs):
        assert type(getattr(ours, name)) is type(getattr(theirs, name)), name
    assert ours.get_context() is context


def test_a_handshake_with_it_chooses_a_protocol(contexts: ServerContexts) -> None:
    server = shaken(contexts)
    assert isinstance(server.tls_connection, LeanConnection)
    assert server.negotiatedProtocol == b"h2"


@pytest.mark.usefixtures("unknown")
def test_an_unknown_pyopenssl_makes_connections_by_itself(contexts: ServerContexts) -> None:
    server = shaken(contexts)
    assert server.tls_connection is not None
    assert "_socket" in vars(server.tls_connection)
    assert server.negotiatedProtocol == b"h2"


@pytest.mark.parametrize("version", ["as it comes", f"{NEWEST[0]}.{NEWEST[1] + 1}.0", f"{NEWEST[0] + 1}.0.0"])
def test_a_newer_pyopenssl_is_not_a_known_one(version: str) -> None:
    assert lean()
    assert not lean(version)


def test_a_pyopenssl_with_another_attribute_is_not_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = SSL.Connection.__init__

    def more(self: SSL.Connection, *given: object) -> None:
        begin(self, *given)  # type: ignore[arg-type]
        self._more = None  # type: ignore[attr-defined]

    monkeypatch.setattr(SSL.Connection, "__init__", more)
    assert not lean()


def test_without_alpn_no_protocol_is_chosen() -> None:
    assert selected_protocol(LeanConnection(SSL.Context(SSL.TLS_SERVER_METHOD))) == b""
