"""WebSocket through the gateway: a client and a server of other make (websockets), over plain TCP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.kit.authority import write_certificate
from tests.kit.clients import BASE_DOMAIN, HOST
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.tls_sockets import shared
from tests.kit.waiting import PATIENCE, until

MIB = 1 << 20
PAGE = f"https://app.{BASE_DOMAIN}"

LIMITS = """
[[limits]]
name = "shakes"
key = ["ip"]
rate = "1/h"
burst = 2
paths = ["/ws/limited"]
methods = ["GET"]

[[limits]]
name = "guesses"
key = ["ip"]
rate = "1/h"
burst = 2
paths = ["/ws/guessed"]
methods = ["GET"]
charge = "failures"
"""


class Chat:
    """A WebSocket server in threads; what it does with a connection goes by the path that was asked for."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.connections: list[ServerConnection] = []
        self.ended: dict[str, ConnectionClosed] = {}
        self.faults: list[BaseException] = []
        self.server: Server = serve(
            self._run,
            "127.0.0.1",
            0,
            max_size=None,
            ssl=context,
            select_subprotocol=lambda _, offered: offered[-1] if offered else None,
            process_request=self._admit,
        )
        self.port: int = self.server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        for fault in self.faults:
            raise fault

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        statuses = {"/ws/refused": 403, "/ws/plain": 200}
        return connection.respond(statuses[request.path], "no\n") if request.path in statuses else None

    def _run(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        assert connection.request is not None
        name = connection.request.path.split("/")[2]
        try:
            getattr(self, name, self.echo)(connection)
        except ConnectionClosed as closed:
            self.ended[connection.request.path] = closed
        except BaseException as error:
            self.faults.append(error)

    def echo(self, connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    def facts(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(json.dumps(list(connection.request.headers.raw_items())))
        connection.recv()

    def farewell(self, connection: ServerConnection) -> None:
        connection.recv()
        connection.close(4001, "that is all")

    def vanish(self, connection: ServerConnection) -> None:
        connection.recv()
        connection.socket.shutdown(socket.SHUT_RDWR)

    def flood(self, connection: ServerConnection) -> None:
        size = int(connection.recv())
        digest = hashlib.sha256()
        for number in range(size // MIB):
            piece = bytes([number % 251]) * MIB
            digest.update(piece)
            connection.send(piece)
        connection.send(digest.hexdigest())
        connection.recv()

    def swallow(self, connection: ServerConnection) -> None:
        digest = hashlib.sha256()
        while isinstance(message := connection.recv(), bytes):
            digest.update(message)
        connection.send(digest.hexdigest())
        connection.recv()

    def both(self, connection: ServerConnection) -> None:
        sender = threading.Thread(target=self.flood_into, args=(connection,))
        sender.start()
        self.swallow_until_text(connection)
        sender.join()
        connection.send("done")
        connection.recv()

    def flood_into(self, connection: ServerConnection) -> None:
        for number in range(64):
            connection.send(bytes([number]) * MIB)

    def swallow_until_text(self, connection: ServerConnection) -> None:
        taken = 0
        while isinstance(message := connection.recv(), bytes):
            taken += len(message)
        assert taken == int(message)


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def gateway(request: pytest.FixtureRequest, chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    sections = {
        "requests": {"max_tunnels": 40},
        "shares": {"address": "100%", "tenant": "100%"},
        "timeouts": {"drain": "3s"},
        "cors": {"origins": [PAGE]},
    }
    config = configuration({"ws": f"http://127.0.0.1:{chat.port}"}, sections, LIMITS)
    folder = tmp_path_factory.mktemp("websocket")
    ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
    with GatewayProcess(folder, config, ports=ports, reactor=request.param) as running:
        yield running


Opener = Callable[..., ClientConnection]


@pytest.fixture(params=["plain", "tls"])
def ws(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Opener:
    def open_at(path: str, **options: Any) -> ClientConnection:
        return opened(gateway, path, tls=request.param == "tls", **options)

    return open_at


def opened(gateway: GatewayProcess, path: str, *, tls: bool = False, **options: Any) -> ClientConnection:
    scheme, port = ("wss", gateway.ports[1]) if tls else ("ws", gateway.ports[0])
    context: ssl.SSLContext | None = gateway.trust() if tls else None
    options.setdefault("max_size", None)
    if "sock" not in options:
        options["sock"] = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return connect(
        f"{scheme}://{HOST}:{port}/ws/{path}",
        ssl=context,
        proxy=None,
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        **options,
    )


def tunnels(gateway: GatewayProcess) -> int:
    return int(gateway.metrics().get('koder_gateway_tunnels_open{service="ws"}', 0))


def line(gateway: GatewayProcess, path: str) -> dict[str, Any]:
    """The line of the access log for the only request to this path."""
    found = until(
        lambda: [each for each in gateway.access() if each["path"] == f"/ws/{path}"], f"the log has a line for {path}"
    )
    assert len(found) == 1, found
    return dict(found[0])


_numbers = iter(range(1_000_000))


def fresh(name: str) -> str:
    """A path that no other test has asked for."""
    return f"{name}/{next(_numbers)}"


def test_text_and_binary_both_ways(ws: Opener, gateway: GatewayProcess) -> None:
    path = fresh("echo")
    with ws(path) as client:
        for message in ("hello", b"\0\1\2", "", b"", "käse", b"x" * 200_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
        assert tunnels(gateway) == 1
        client.ping().wait(PATIENCE)
    seen = line(gateway, path)
    assert (seen["status"], seen["code"], seen["service"]) == (101, "", "ws")
    assert seen["bytes_in"] > 0
    assert seen["bytes_out"] > 0
    until(lambda: tunnels(gateway) == 0, "the tunnel is closed")


def test_the_service_sees_a_request_like_any_other_and_the_handshakes_own_fields(ws: Opener) -> None:
    with ws(fresh("facts"), additional_headers={"X-Tenant-ID": "acme", "X-Forwarded-For": "6.6.6.6"}) as client:
        fields = [(name.lower(), value) for name, value in json.loads(client.recv(PATIENCE))]
        assert client.response is not None
        answer = client.response.headers
    values = dict(fields)
    assert len(values) == len(fields), fields
    assert (values["connection"], values["upgrade"]) == ("Upgrade", "websocket")
    assert values["host"].partition(":")[0] == HOST
    assert values["x-tenant-id"] == "acme"
    assert values["x-forwarded-for"] == "127.0.0.1"
    assert values["via"] == "1.1 koder-gateway"
    assert "permessage-deflate" in values["sec-websocket-extensions"]
    assert answer["X-Request-ID"] == values["x-request-id"]
    assert answer.get_all("Connection") == ["Upgrade"]
    assert answer.get_all("Upgrade") == ["websocket"]
    assert answer.get_all("Content-Length") + answer.get_all("Transfer-Encoding") == []


def test_extensions_and_subprotocols_are_between_the_two(ws: Opener) -> None:
    with ws(fresh("echo"), subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        client.send("deflate " * 10_000)
        assert client.recv(PATIENCE) == "deflate " * 10_000
    with ws(fresh("echo"), compression=None) as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        assert client.subprotocol is None


def test_64_mib_down(ws: Opener) -> None:
    with ws(fresh("flood"), compression=None) as client:
        client.send(str(64 * MIB))
        digest = hashlib.sha256()
        while isinstance(message := client.recv(PATIENCE), bytes):
            digest.update(message)
        assert message == digest.hexdigest()


def test_64_mib_up(ws: Opener) -> None:
    with ws(fresh("swallow"), compression=None) as client:
        digest = hashlib.sha256()
        for number in range(64):
            piece = bytes([number]) * MIB
            digest.update(piece)
            client.send(piece)
        client.send("that is all")
        assert client.recv(PATIENCE) == digest.hexdigest()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_64_mib_both_ways_at_once(gateway: GatewayProcess, tls: bool) -> None:
    """The client is asyncio's: one that sends in a thread reads nothing meanwhile, and both would wait for ever."""

    async def exchange() -> None:
        port = gateway.ports[int(tls)]
        url = f"{'wss' if tls else 'ws'}://{HOST}:{port}/ws/both/{tls}"
        context = gateway.trust() if tls else None
        async with connect_async(
            url, host="127.0.0.1", port=port, ssl=context, proxy=None, compression=None, max_size=None
        ) as client:

            async def send() -> None:
                for number in range(64):
                    await client.send(bytes([number]) * MIB)
                await client.send(str(64 * MIB))

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                for number in range(64):
                    assert await client.recv() == bytes([number]) * MIB
                assert await client.recv() == "done"

    async def bounded() -> None:
        await asyncio.wait_for(exchange(), 3 * PATIENCE)

    asyncio.run(bounded())


def test_the_client_says_goodbye(ws: Opener, chat: Chat, gateway: GatewayProcess) -> None:
    path = fresh("facts")
    with ws(path) as client:
        client.recv(PATIENCE)
        client.close(4000, "enough")
    until(lambda: f"/ws/{path}" in chat.ended, "the service has heard")
    closed = chat.ended[f"/ws/{path}"]
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (4000, "enough")
    assert line(gateway, path)["code"] == ""


def test_the_service_says_goodbye(ws: Opener, gateway: GatewayProcess) -> None:
    path = fresh("farewell")
    with ws(path) as client:
        client.send("now")
        with pytest.raises(ConnectionClosedError) as raised:
            client.recv(PATIENCE)
    assert raised.value.rcvd is not None
    assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4001, "that is all")
    assert line(gateway, path)["code"] == ""


def test_a_client_that_vanishes(ws: Opener, chat: Chat, gateway: GatewayProcess) -> None:
    path = fresh("facts")
    with ws(path) as client:
        client.recv(PATIENCE)
        client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: f"/ws/{path}" in chat.ended, "the service has heard")
    assert chat.ended[f"/ws/{path}"].rcvd is None
    assert line(gateway, path)["status"] == 101
    until(lambda: tunnels(gateway) == 0, "the tunnel is closed")


def test_a_service_that_vanishes(ws: Opener, gateway: GatewayProcess) -> None:
    path = fresh("vanish")
    with ws(path) as client:
        client.send("now")
        with pytest.raises(ConnectionClosedError) as raised:
            client.recv(PATIENCE)
    assert raised.value.rcvd is None
    assert line(gateway, path)["status"] == 101
    until(lambda: tunnels(gateway) == 0, "the tunnel is closed")


def test_a_service_that_does_not_want_to_is_proxied_as_usual(ws: Opener, gateway: GatewayProcess) -> None:
    with pytest.raises(InvalidStatus) as raised, ws("refused"):
        pass
    answer = raised.value.response
    assert (answer.status_code, answer.body) == (403, b"no\n")
    assert answer.headers["X-Request-ID"]


def test_limits_apply_to_the_handshake(gateway: GatewayProcess) -> None:
    for _ in range(2):
        with opened(gateway, "limited") as client:
            assert client.response is not None
            assert "RateLimit" in client.response.headers
    with pytest.raises(InvalidStatus) as raised, opened(gateway, "limited"):
        pass
    assert raised.value.response.status_code == 429
    assert int(raised.value.response.headers["Retry-After"]) > 0


def test_a_tunnel_holds_no_charge_of_a_limit_on_failures(gateway: GatewayProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(opened(gateway, "guessed"))


def test_the_handshake_carries_cors_fields_for_an_allowed_page_only(gateway: GatewayProcess) -> None:
    for origin, allowed in ((PAGE, PAGE), ("https://evil.example", None)):
        with opened(gateway, fresh("echo"), origin=origin) as client:
            assert client.response is not None
            assert client.response.headers.get("Access-Control-Allow-Origin") == allowed


def test_more_than_max_tunnels_are_refused_and_ordinary_requests_are_not(gateway: GatewayProcess) -> None:
    until(lambda: tunnels(gateway) == 0, "no tunnel is open")
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(opened(gateway, "echo/many"))
        with pytest.raises(InvalidStatus) as raised, opened(gateway, "echo/many"):
            pass
        answer = raised.value.response
        assert (answer.status_code, json.loads(answer.body or b"")["code"]) == (503, "overloaded")
        with gateway.connect() as plain:
            assert plain.ask("GET", "/ws/echo").status == 426
    until(lambda: tunnels(gateway) == 0, "the tunnels are closed")
    with opened(gateway, "echo/many"):
        assert tunnels(gateway) == 1


def test_a_reader_that_stands_still_stops_the_service(gateway: GatewayProcess, chat: Chat) -> None:
    """Half a GiB is sent as fast as it is taken, and what nobody takes stays with who sends it."""
    for tls in (False, True):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        raw.connect(("127.0.0.1", gateway.ports[int(tls)]))
        with opened(gateway, fresh("flood"), tls=tls, compression=None, sock=raw, max_queue=1) as client:
            gateway.forget_peak()
            before = gateway.memory("VmRSS")
            client.send(str(64 * MIB))
            digest = hashlib.sha256()
            while isinstance(message := client.recv(PATIENCE), bytes):
                digest.update(message)
                time.sleep(0.002)
            assert message == digest.hexdigest()
            assert gateway.memory("VmHWM") - before < 16 * MIB


def test_closed_ok_is_what_a_client_sees_at_a_plain_end(ws: Opener) -> None:
    with ws(fresh("echo")) as client:
        client.close()
        with pytest.raises(ConnectionClosedOK):
            client.recv(PATIENCE)


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_a_service_behind_tls(reactor: str, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "service", "localhost")
    context = shared(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.load_cert_chain(certificate)
    chat = Chat(context)
    try:
        extra = f"""
[services.ws]
url = "https://localhost:{chat.port}"
ca = "{certificate}"

[[routes]]
path = "/ws"
service = "ws"
"""
        config = configuration({}, {"timeouts": {"drain": "3s"}}, extra)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        with GatewayProcess(tmp_path, config, ports=ports, reactor=reactor) as gateway:
            for tls in (False, True):
                for name in ("echo", "flood", "farewell", "vanish"):
                    with opened(gateway, f"{name}/{tls}", tls=tls, compression=None) as client:
                        talk(client, name)
                    assert line(gateway, f"{name}/{tls}")["status"] == 101
            until(lambda: tunnels(gateway) == 0, "every tunnel is closed")
    finally:
        chat.close()


def talk(client: ClientConnection, name: str) -> None:
    """Be the client of a service of `Chat`'s, to its end."""
    if name == "flood":
        client.send(str(8 * MIB))
        digest = hashlib.sha256()
        while isinstance(message := client.recv(PATIENCE), bytes):
            digest.update(message)
        assert message == digest.hexdigest()
        return
    client.send("hello")
    if name == "echo":
        assert client.recv(PATIENCE) == "hello"
        return
    with pytest.raises(ConnectionClosedError) as raised:
        client.recv(PATIENCE)
    assert (raised.value.rcvd is None) == (name == "vanish")
