"""Tickets that several processes can read, played by several contexts in one: nothing but the keys is shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from koder_gateway.tls.contexts import HTTP_1, HTTP_2, ContextOptions, ServerContexts, build_context
from koder_gateway.tls.ticket_contexts import TICKETS, TicketContexts
from tests.tls.test_contexts import Peer, begun, client_context, resumed, self_signed

VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
BEGUN = 1000.0


class Workers:
    """Two workers with certificates of these names, at a time that a test sets."""

    def __init__(self, folder: Path, *names: str, protocols: tuple[bytes, ...] = HTTP_1, periods: int = 3) -> None:
        self.now = BEGUN
        tickets = TicketContexts(BEGUN, periods)
        tickets.make_row(0, lambda: build_context(None, ContextOptions()))
        certificates = [self_signed(folder, name) for name in names]
        options = ContextOptions(protocols=protocols)
        # After a fork each worker has copies of the contexts; here they are the same, and take its callback.
        self.made = [
            ServerContexts(certificates, options=options, tickets=lambda: tickets.at(0, self.now)) for _ in range(2)
        ]

    def take(self, number: int) -> ServerContexts:
        """One of the workers, which serves from now on."""
        self.made[number].rotate()
        return self.made[number]


@VERSIONS
@pytest.mark.parametrize("names", [("a.example",), ("a.example", "b.example")])
@pytest.mark.parametrize("name", [None, b"a.example", b"b.example"])
def test_a_session_is_resumed_by_the_other_worker(
    tmp_path: Path, version: int, names: tuple[str, ...], name: bytes | None
) -> None:
    workers = Workers(tmp_path, *names)
    context, session = begun(workers.take(0), version, name)
    again = Peer(workers.take(1), context=context, name=name, session=session).handshake()
    assert resumed(again)


@VERSIONS
def test_everybody_gets_the_certificate_of_the_name(tmp_path: Path, version: int) -> None:
    contexts = Workers(tmp_path, "a.example", "b.example").take(0)
    for name in ("b.example", "a.example"):
        peer = Peer(contexts, context=client_context(maximum=version), name=name.encode()).handshake()
        served = peer.client.get_peer_certificate(as_cryptography=True)
        assert served is not None
        assert served.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name


@VERSIONS
def test_the_keys_change_with_the_period_for_all(tmp_path: Path, version: int) -> None:
    workers = Workers(tmp_path, "a.example")
    context, session = begun(workers.take(0), version, b"a.example")
    workers.now = BEGUN + TICKETS - 1
    assert resumed(Peer(workers.take(1), context=context, name=b"a.example", session=session).handshake())
    workers.now = BEGUN + TICKETS
    assert not resumed(Peer(workers.take(0), context=context, name=b"a.example", session=session).handshake())
    context, session = begun(workers.take(0), version, b"a.example")
    assert resumed(Peer(workers.take(1), context=context, name=b"a.example", session=session).handshake())


def test_after_the_last_period_each_has_its_own(tmp_path: Path) -> None:
    workers = Workers(tmp_path, "a.example")
    workers.now = BEGUN + 3 * TICKETS
    context, session = begun(workers.take(0), SSL.TLS1_3_VERSION, b"a.example")
    assert resumed(Peer(workers.made[0], context=context, name=b"a.example", session=session).handshake())
    assert not resumed(Peer(workers.take(1), context=context, name=b"a.example", session=session).handshake())


@pytest.mark.parametrize(("protocols", "chosen"), [(HTTP_1, b"http/1.1"), (HTTP_2, b"h2")])
def test_the_protocol_is_that_of_the_worker(tmp_path: Path, protocols: tuple[bytes, ...], chosen: bytes) -> None:
    """Whatever the context was made for: a reload changes it, and not the context."""
    contexts = Workers(tmp_path, "a.example", protocols=protocols).take(0)
    context = client_context()
    context.set_alpn_protos([b"h2", b"http/1.1"])
    peer = Peer(contexts, context=context, name=b"a.example").handshake()
    assert peer.client.get_alpn_proto_negotiated() == chosen


def test_what_has_passed_is_dropped() -> None:
    tickets = TicketContexts(BEGUN, 3)
    tickets.make_row(0, lambda: SSL.Context(SSL.TLS_SERVER_METHOD))
    first = tickets.at(0, BEGUN)
    assert tickets.at(0, BEGUN + 1) is first
    second = tickets.at(0, BEGUN + TICKETS)
    assert second not in (first, None)
    assert tickets.at(0, BEGUN) is None
    assert tickets.at(0, BEGUN + 100 * TICKETS) is None
    assert tickets.at(0, BEGUN + TICKETS) is None
    assert tickets.next_period(BEGUN) == BEGUN + TICKETS
    assert tickets.next_period(BEGUN + 2.5 * TICKETS) == BEGUN + 3 * TICKETS
