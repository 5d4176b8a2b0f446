"""The bytes of a service over TLS: each of them both ways, slow readers, every end, and idle connections."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.kit.clients import request
from tests.kit.gateways import KERNEL_RECEIVES, KERNEL_SENDS, GatewayProcess
from tests.kit.secure_services import OK, SecureService, Talk
from tests.kit.waiting import PATIENCE, until
from tests.upstream.test_tls_endpoint import (
    MIB,
    NAME,
    authority,
    both_versions,
    configured,
    eventually,
    log,
    run,
    table,
    transport,
)

__all__ = ["authority", "log", "run", "transport"]

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it"
SIZES = (0, 1, 16383, 16384, 16385, 500_000, 3 * MIB + 7)


def pattern(size: int) -> bytes:
    """Bytes of which no two nearby pieces are alike."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


def echo(talk: Talk) -> None:
    """Answer with the body of the request."""
    while head := talk.head():
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = talk.body(size)
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))


@both_versions
@pytest.mark.parametrize("size", SIZES)
@pytest_twisted.ensureDeferred
async def test_every_byte_arrives_both_ways(
    run: Any, authority: Any, transport: object, version: ssl.TLSVersion, size: int
) -> None:
    with SecureService(authority.issue(NAME), echo, version=version) as service:
        running = run(*table(service, authority.path))
        body = pattern(size)
        answer = await running.ask(method="POST", body=body)
        assert (answer.status, answer.ended) == (200, "complete")
        assert answer.body == body


@pytest_twisted.ensureDeferred
async def test_small_records_arrive(run: Any, authority: Any, transport: object) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz":
            talk.send(bytes([byte]))
        assert talk.head() == b""

    with SecureService(authority.issue(NAME), play) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).body == b"abcdefghijklmnopqrstuvwxyz"


# -- the end of an answer


@both_versions
@pytest_twisted.ensureDeferred
async def test_an_answer_until_goodbye_is_complete(
    run: Any, authority: Any, transport: object, version: ssl.TLSVersion
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(UNTIL_CLOSE)
        talk.goodbye()

    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask()
        assert (answer.status, answer.body, answer.ended) == (200, b"all of it", "complete")
        assert running.service.idle == 0
        assert running.service.failures == {}


@both_versions
@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest.mark.parametrize(
    "answer", [UNTIL_CLOSE, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nall of it"], ids=["close", "length"]
)
@pytest_twisted.ensureDeferred
async def test_an_answer_without_goodbye_is_cut(
    run: Any, authority: Any, log: list[str], transport: object, version: ssl.TLSVersion, how: str, answer: bytes
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(answer)
        # The gateway has passed on what it got before the end comes, so that it is the end alone that is judged.
        until(lambda: passed_on, "the client has the body's beginning")
        getattr(talk, how)()

    passed_on: list[bool] = []
    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))

        def ask() -> tuple[bytes, str]:
            with running.connect() as client:
                client.send(request("GET", "/"))
                head = client.head()
                body = bytearray()
                chunked = head.get("transfer-encoding") == "chunked"
                while b"all of it" not in body:
                    body += client.receive()
                client.put_back(bytes(body))
                passed_on.append(True)
                rest = bytearray()
                with contextlib.suppress(Exception):
                    while True:
                        rest += client.receive()
                return bytes(rest), "chunked" if chunked else "length"

        body, framing = await deferToThread(ask)
        assert b"all of it" in body
        if framing == "chunked":
            assert not body.endswith(b"0\r\n\r\n"), "the cut looks like an end"
        await eventually(lambda: running.service.failures == {"closed": 1}, "the cut is counted")
        told = "the connection was cut: TLS was not closed (no close_notify)" if how == "cut" else "closed: "
        assert told in log[0]


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_broken_record_cuts_the_answer(
    run: Any, authority: Any, log: list[str], transport: object, version: ssl.TLSVersion
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nall of it")
        bare = socket.socket(fileno=talk.secured.detach())
        bare.sendall(b"\x17\x03\x03\x00\x20" + b"z" * 32)
        bare.settimeout(20)
        with contextlib.suppress(OSError):
            while bare.recv(65536):
                pass
        bare.close()

    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        answer = await running.ask()
        assert (answer.status, answer.ended != "complete") == (200, True)
        assert "TLS failed: " in log[0]


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_goodbye_before_the_answer_is_retried_only_where_it_is_safe(
    run: Any, authority: Any, transport: object, version: ssl.TLSVersion
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(OK)
        if talk.head():
            talk.goodbye()

    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).status == 200
        assert (await running.ask()).status == 200
        assert running.service.retried == 1
        assert (await running.ask(method="POST", body=b"secret")).code == "upstream_closed"
        assert running.service.retried == 1


# -- idle connections


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_connection_is_used_again(
    run: Any, authority: Any, transport: object, version: ssl.TLSVersion
) -> None:
    with SecureService(authority.issue(NAME), version=version) as service:
        running = run(*table(service, authority.path))
        for _ in range(3):
            assert (await running.ask(method="POST", body=b"x")).status == 200
        assert len(service.handshakes) == 1


@pytest_twisted.ensureDeferred
async def test_an_idle_connection_that_says_goodbye_leaves_the_pool_at_once(
    run: Any, authority: Any, transport: object
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(OK)
        until(lambda: told, "the test goes on")
        talk.goodbye()

    told: list[bool] = []
    with SecureService(authority.issue(NAME), play) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).status == 200
        assert running.service.idle == 1
        told.append(True)
        await eventually(lambda: running.service.idle == 0, "the connection has left")
        assert running.service.failures == {}


def idle_connection(running: Any) -> Any:
    """The only idle connection of a gateway."""
    (address,) = running.service.addresses
    (connection,) = address.idle
    return connection


def await_bytes(connection: Any) -> None:
    """Hold the reactor until something waits to be read."""
    readable, _, _ = select.select([connection.transport.getHandle()], [], [], PATIENCE)
    assert readable, "nothing came"


@both_versions
@pytest.mark.parametrize("how", ["goodbye", "cut", "reset", "answer"])
@pytest_twisted.ensureDeferred
async def test_what_has_ended_or_speaks_unasked_is_stale(
    run: Any, authority: Any, transport: object, version: ssl.TLSVersion, how: str
) -> None:
    def play(talk: Talk) -> None:
        assert talk.head()
        talk.send(OK)
        until(lambda: asked, "the test goes on")
        if how == "answer":
            talk.send(OK)
        else:
            getattr(talk, how)()

    asked: list[bool] = []
    with SecureService(authority.issue(NAME), play, version=version) as service:
        running = run(*table(service, authority.path))
        assert (await running.ask()).status == 200
        connection = idle_connection(running)
        assert connection.stale() is False
        asked.append(True)
        await_bytes(connection)
        assert connection.stale() is True
        (address,) = running.service.addresses
        assert address.checkout(b"") is None


class Shell:
    """`openssl s_server`, whose input is what it answers, but for lines that are commands."""

    def __init__(self, pair: Any) -> None:
        command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", str(pair.certificate)]
        command += ["-key", str(pair.key), "-tls1_3", "-crlf"]
        self._printed = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.await_text(b"ACCEPT 127.0.0.1:")
        self.await_text(b"\n")
        self.port = int(self.before)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def await_text(self, text: bytes) -> None:
        """Return once this has been printed, which is then forgotten; `before` is what stood before it."""
        assert self._process.stdout is not None
        while text not in self._printed:
            data = self._process.stdout.read(65536)
            assert data, self._printed
            self._printed += data
        self.before, _, self._printed = self._printed.partition(text)

    def type(self, line: bytes) -> None:
        """A line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl's s_server")
@pytest_twisted.ensureDeferred
async def test_what_tls_says_to_itself_makes_no_idle_connection_stale(
    run: Any, authority: Any, transport: object
) -> None:
    """As a late ticket does, new keys come when nobody has asked for anything."""
    with Shell(authority.issue(NAME)) as service:
        running = run(*table(service, authority.path))
        for number in range(3):
            asking = ensureDeferred(running.ask(method="POST", body=b"number %d." % number))
            await deferToThread(service.await_text, b"number %d." % number)
            service.type(b"HTTP/1.1 200 OK\nContent-Length: 4\n\nhi\n")
            assert (await asking).status == 200
            connection = idle_connection(running)
            service.type(b"k\n")
            await_bytes(connection)
            assert connection.stale() is False
            assert idle_connection(running) is connection
        assert running.service.opened == 1


# -- much of it, slowly, on the reactor that serves by default

BLOCK = pattern(MIB)
LEAP = 16 * MIB
# What is on the way to a service that reads nothing: a buffer of the kernel at each end of the gateway, and what the
# gateway itself may hold. (Those of the client and of the service are small.)
UNDER_WAY = KERNEL_RECEIVES + KERNEL_SENDS + LEAP
SIZE = max(48 * MIB, (UNDER_WAY // MIB + 8) * MIB)


def swallow(talk: Talk) -> None:
    """Take a big body a block at a time, none before it may."""
    while talk.head():
        pressed = talk.body(MIB) == BLOCK
        until(lambda: waiting, "the client's side is full")
        for _ in range(SIZE // MIB - 1):
            pressed = talk.body(MIB) == BLOCK and pressed
        assert pressed, "the body has changed on its way"
        talk.send(OK)


waiting: list[bool] = []


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_slow_client_holds_a_service_back(tmp_path: Path, authority: Any, version: ssl.TLSVersion) -> None:
    def play() -> None:
        with GatewayProcess(tmp_path, configured(*table(service, authority.path))) as gateway:
            with gateway.connect(receive_buffer=65536) as client:
                assert client.ask("GET", "/").body == BLOCK * (SIZE // MIB)
            gateway.forget_peak()
            before = gateway.memory("VmRSS")
            with gateway.connect(receive_buffer=65536) as client:
                client.send(request("GET", "/"))
                assert client.head().status == 200
                until(lambda: stands_still(service), "the service is held back")
                body = bytearray()
                while len(body) < SIZE:
                    body += client.receive()
            assert body == BLOCK * (SIZE // MIB)
            assert gateway.memory("VmHWM") - before < LEAP

    sent = [0]

    def counting(talk: Talk) -> None:
        while talk.head():
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // MIB):
                talk.send(BLOCK)
                sent[0] += 1

    def stands_still(_: object) -> bool:
        before = sent[0]
        time.sleep(0.1)
        return sent[0] == before

    with SecureService(authority.issue(NAME), counting, version=version) as service:
        await deferToThread(play)


@both_versions
@pytest_twisted.ensureDeferred
async def test_a_slow_service_holds_a_client_back(tmp_path: Path, authority: Any, version: ssl.TLSVersion) -> None:
    def play() -> None:
        extra = f'[requests]\nmax_body = "{SIZE}B"\n'
        with GatewayProcess(tmp_path, configured(*table(service, authority.path)) + extra) as gateway:
            before = gateway.memory("VmRSS")
            with gateway.connect(send_buffer=65536) as client:
                head = request("POST", "/", f"Content-Length: {SIZE}").replace(b"Content-Length: 0\r\n", b"")
                client.send(head)
                client.socket.settimeout(0.5)
                sent, body = 0, memoryview(BLOCK * (SIZE // MIB))
                with contextlib.suppress(TimeoutError):
                    while sent < SIZE:
                        sent += client.socket.send(body[sent:])
                assert sent <= UNDER_WAY < SIZE, "nobody has held the client back"
                waiting.append(True)
                client.socket.settimeout(PATIENCE)
                client.send(body[sent:])
                assert client.read("POST").status == 200
            assert gateway.memory("VmHWM") - before < LEAP

    waiting.clear()
    with SecureService(authority.issue(NAME), swallow, version=version, receive_buffer=65536) as service:
        await deferToThread(play)
