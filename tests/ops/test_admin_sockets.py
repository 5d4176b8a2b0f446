"""The admin port and the redirect port of a real gateway, and clients that would hold them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from koder_gateway.ops.admin_channel import MAX_CONNECTIONS
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.waiting import PATIENCE

MIB = 1 << 20
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    ports = {"ports": (GatewayProcess.TLS,), "redirects": (GatewayProcess.PLAIN,)}
    with GatewayProcess(tmp_path_factory.mktemp("admin"), configuration({}), **ports) as gateway:
        yield gateway


def connect(gateway: GatewayProcess, *, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect(("127.0.0.1", gateway.admin))
    return connection


def pushed(connection: socket.socket, piece: bytes, total: int) -> int:
    """How much of so many bytes the other side takes before it stops or ends."""
    sent = 0
    connection.settimeout(0.5)
    try:
        while sent < total:
            sent += connection.send(piece)
    except OSError:
        pass
    connection.settimeout(PATIENCE)
    return sent


def files(gateway: GatewayProcess) -> set[str]:
    """What the gateway has open, as far as it is a file."""
    folder = f"/proc/{gateway.pid}/fd"
    links = []
    for number in os.listdir(folder):
        # It may close one meanwhile.
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"{folder}/{number}"))
    return {link for link in links if link.startswith("/")}


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 314572800\r\n", b"x" * 65536),
        (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ],
    ids=["length", "chunks"],
)
def test_a_large_body_is_refused_at_once_and_kept_nowhere(
    gateway: GatewayProcess, framing: bytes, body: bytes
) -> None:
    before, memory = files(gateway), gateway.memory("VmRSS")
    with connect(gateway) as connection:
        connection.sendall(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % framing + body[:2000])
        answer = Client(connection).read()
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")
        assert pushed(connection, body, 300 * MIB) < 32 * MIB, "what the kernel takes, and no more"
        # The folder of certificates is looked at in the meantime.
        assert not [name for name in files(gateway) - before if not name.endswith("/certs")]
        assert gateway.memory("VmRSS") - memory < 4 * MIB
        assert gateway.ask_admin("/healthz") == (200, "ok\n")


def test_the_answer_to_a_large_body_can_be_read_after_it_was_sent(gateway: GatewayProcess) -> None:
    """A close with unread bytes would reset the connection, and the answer with it."""
    with connect(gateway) as connection:
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        assert Client(connection).read().status == 413


def test_pages_that_nobody_reads_hold_little_and_nobody(gateway: GatewayProcess) -> None:
    memory = gateway.memory("VmRSS")
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(connect(gateway, receive_buffer=4096))
            pushed(connection, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000, 4 * MIB)
            assert gateway.ask_admin("/healthz") == (200, "ok\n")
        assert gateway.memory("VmRSS") - memory < 16 * MIB


def test_connections_that_do_nothing_do_not_hold_the_port(gateway: GatewayProcess) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(gateway)) for _ in range(MAX_CONNECTIONS)]
        for connection in held[: MAX_CONNECTIONS // 2]:
            connection.sendall(b"GET /heal")
        assert gateway.ask_admin("/healthz") == (200, "ok\n")
        late = stack.enter_context(connect(gateway))
        late.sendall(PROBE)
        assert Client(late).read().status == 200


def test_who_stops_sending_is_answered(gateway: GatewayProcess) -> None:
    with connect(gateway) as connection:
        connection.sendall(PROBE * 2)
        connection.shutdown(socket.SHUT_WR)
        client = Client(connection)
        assert [client.read().status, client.read().status] == [200, 200]
        assert connection.recv(1) == b""


def test_names_of_others_get_nothing(gateway: GatewayProcess) -> None:
    with connect(gateway) as connection:
        connection.sendall(PROBE.replace(b"localhost", b"rebound.example:9100"))
        answer = Client(connection).read()
        assert (answer.status, json.loads(answer.body)["code"]) == (421, "misdirected_request")


def test_behind_a_unix_socket_any_host_is_fine(tmp_path: Path) -> None:
    """No page of a browser gets there."""
    path = tmp_path / "admin.sock"
    config = configuration({}, {"listen": {"admin_port": f"unix:{path}"}})
    with GatewayProcess(tmp_path, config, admin=False), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(PROBE.replace(b"localhost", b"anything.example"))
        assert Client(connection).read().status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 314572800\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_on_the_redirect_port_is_bounded_too(gateway: GatewayProcess, framing: bytes) -> None:
    before, memory = files(gateway), gateway.memory("VmRSS")
    with gateway.connect(-1) as client:
        client.send(b"POST /a HTTP/1.1\r\nHost: acme.id.test\r\n%b\r\n" % framing)
        pushed(client.socket, b"10000\r\n" + b"x" * 65536 + b"\r\n", 300 * MIB)
        assert files(gateway) - before <= {str(gateway.folder / "access.log")}
        assert gateway.memory("VmRSS") - memory < 4 * MIB
