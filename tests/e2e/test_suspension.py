"""What is open of a tenant ends when it is suspended or removed, within a refresh: over sockets, on each way in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.doors import Doors, open_doors
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, headers
from tests.kit.recording import HOST, SETTINGS, TENANTS, connect, request
from tests.kit.waiting import until as eventually

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello"
OPENING = b"Connection: Upgrade\r\nUpgrade: chat\r\n"
ACME = b"acme.id.koder.dev"


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    settings = SETTINGS.replace("[tenants]\n", '[tenants]\nrefresh = "100ms"\n')
    with open_doors(tmp_path, settings) as doors:
        doors.origin.answers[b"/v1/users/stream"] = STREAM
        doors.origin.answers[b"/v1/users/socket"] = SWITCHED
        doors.origin.held.add(b"/v1/users/slow")
        yield doors


def replace_registry(doors: Doors, text: str) -> None:
    """As whoever does it in order does it."""
    fresh = doors.folder / "tenants.new"
    fresh.write_text(text)
    fresh.replace(doors.folder / "tenants.toml")


SUSPENDED = TENANTS.replace('slug = "koder"\n', 'slug = "koder"\nstatus = "suspended"\n')
REMOVED = TENANTS[TENANTS.index('[[tenant]]\nslug = "acme"') :]


def until(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes, as soon as this is among it."""
    came = b""
    while wanted not in came:
        data = connection.recv(65536)
        assert data, came
        came += data
    return came


def rest(connection: socket.socket) -> bytes:
    """What comes until the connection ends, however that is."""
    came = b""
    try:
        while data := connection.recv(65536):
            came += data
    except ConnectionError:
        pass
    return came


@pytest.mark.parametrize(("registry", "code"), [(SUSPENDED, "tenant_suspended"), (REMOVED, "unknown_tenant")])
def test_what_is_open_of_a_tenant_ends_with_it(registry: str, code: str, doors: Doors) -> None:
    tls, stock = doors.ports
    with (
        connect(tls, secure=True) as stream,
        connect(tls, secure=True) as tunnel,
        connect(tls, secure=True) as slow,
        connect(tls, secure=True) as others,
        connect(stock) as mounted,
        Http2Client.connect(tls, HOST) as client,
    ):
        for one in (stream, mounted):
            one.send(request(b"/v1/users/stream"))
            until(one.socket, b"data:")
        others.send(request(b"/v1/users/stream", host=ACME))
        until(others.socket, b"data:")
        tunnel.send(request(b"/v1/users/socket", fields=OPENING))
        until(tunnel.socket, b"hello")
        slow.send(request(b"/v1/users/slow"))
        doors.origin.wait_for(b"/v1/users/slow")
        client.start()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/v1/users/stream"), (b":authority", HOST)]
        client.send(headers(1, block(head)))
        while not client.answers[1].body:
            assert client.next() is not None
        replace_registry(doors, registry)
        assert not rest(stream.socket).endswith(b"0\r\n\r\n")
        assert not rest(mounted.socket).endswith(b"0\r\n\r\n")
        assert rest(tunnel.socket) == b""
        assert slow.answer().code == code
        while client.answers[1].reset is None:
            assert client.next() is not None
        assert not client.answers[1].complete
        assert not others.waits()
    log = doors.folder / "access.log"
    eventually(lambda: log.read_text().count(f'"{code}"') == 5, "every one of them is logged with the reason")
