"""Completed handshakes are counted by what they have negotiated, each once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from OpenSSL import SSL
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.handshake_failures import HandshakeFailures
from koder_gateway.tls.stream import TLSTransport
from tests.kit.memory import join

TLS12, TLS13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
CURVE = "secp256r1"


class Door:
    """A listening side in memory, whose handshakes are counted."""

    def __init__(self, folder: Path) -> None:
        self.handshakes = HandshakeFailures()
        self.contexts = ServerContexts([self_signed(folder, "id.test")])

    def enter(self, version: int, after: SSL.Connection | None = None) -> SSL.Connection:
        """A client comes that speaks this version and has one group alone; `after` is the one whose session it
        has."""
        if after is None:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
            assert SSL._lib.SSL_CTX_set1_curves_list(context._context, b"P-256") == 1  # type: ignore[attr-defined]
        else:
            context = after.get_context()
        client = SSL.Connection(context, None)
        client.set_connect_state()
        if after is not None:
            session = after.get_session()
            assert session is not None
            client.set_session(session)
        server = TLSTransport(self.contexts.serverConnectionForTLS(None), Protocol(), self.handshakes)
        wire = join(Clock(), server, peer="192.0.2.1")
        for _ in range(4):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            # A session of TLS 1.3 comes behind the handshake.
            with contextlib.suppress(SSL.Error):
                client.recv(1)
            with contextlib.suppress(SSL.WantReadError):
                wire.send(client.bio_read(1 << 16))
            arrived, wire.received = wire.received, b""
            if arrived:
                client.bio_write(arrived)
        return client

    @property
    def counts(self) -> dict[tuple[str, str, str], int]:
        return self.handshakes.completed.counts


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def group() -> str:
    """The name that OpenSSL gives the group, as far as it tells."""
    return CURVE if getattr(SSL._lib, "Cryptography_HAS_SSL_GET0_GROUP_NAME", 0) else ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(("version", "name"), [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")])
def test_handshakes_are_counted_by_kind_version_and_group(door: Door, version: int, name: str) -> None:
    first = door.enter(version)
    assert door.counts == {("full", name, group()): 1}
    door.enter(version)
    assert door.counts == {("full", name, group()): 2}
    door.enter(version, first)
    resumed = {key: count for key, count in door.counts.items() if key[0] == "resumed"}
    # A resumed session of TLS 1.2 exchanges no keys; some versions of OpenSSL tell the group of the first one.
    assert [(key[1], key[2] in ("", group()), count) for key, count in resumed.items()] == [(name, True, 1)]
    assert door.counts["full", name, group()] == 2


def test_a_handshake_that_fails_is_not_among_them(door: Door) -> None:
    server = TLSTransport(door.contexts.serverConnectionForTLS(None), Protocol(), door.handshakes)
    join(Clock(), server, peer="192.0.2.1").send(b"SSH-2.0-x\r\n")
    assert sum(door.handshakes.counts.values()) == 1
    assert door.counts == {}
