"""WebSocket over a stream of HTTP/2 (RFC 8441), to a server of other make that only knows HTTP/1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.e2e.test_websocket import Chat
from tests.kit.clients import HOST
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Answer, Http2Client
from tests.kit.http2_frames import (
    CANCEL,
    DEFAULT_WINDOW,
    INITIAL_WINDOW_SIZE,
    PROTOCOL_ERROR,
    Fields,
    block,
    data,
    headers,
    reset,
    window_update,
)
from tests.kit.waiting import until

ENABLE_CONNECT_PROTOCOL = 8
AUTHORITY = HOST.encode()
LIMITS = """
[[limits]]
name = "shakes"
key = ["ip"]
rate = "1/h"
burst = 1
paths = ["/ws/limited"]
"""


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


@pytest.fixture(scope="module", params=["uvloop", "epoll"])
def gateway(request: pytest.FixtureRequest, chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = configuration({"ws": f"http://127.0.0.1:{chat.port}"}, {}, LIMITS)
    folder = tmp_path_factory.mktemp("http2-websocket")
    with GatewayProcess(folder, config, ports=(GatewayProcess.TLS,), reactor=request.param) as running:
        yield running


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[Http2Client]:
    with Http2Client.connect(gateway.ports[0], AUTHORITY) as client:
        yield client.start()


def opening(below: str, *more: tuple[bytes, bytes], **pseudo: bytes | None) -> bytes:
    """The field block of an extended CONNECT; `pseudo` replaces pseudo fields, or leaves them out (None)."""
    fields = {
        "method": b"CONNECT",
        "protocol": b"websocket",
        "scheme": b"https",
        "path": f"/ws/{below}".encode(),
        "authority": AUTHORITY,
        **pseudo,
    }
    listed: Fields = [(b":" + name.encode(), value) for name, value in fields.items() if value is not None]
    return block([*listed, (b"sec-websocket-version", b"13"), *more])


def message(payload: bytes, opcode: Opcode = Opcode.BINARY) -> bytes:
    return Frame(opcode, payload).serialize(mask=True)


def told(payload: bytes, opcode: Opcode = Opcode.BINARY) -> bytes:
    """The same message as the server sends it."""
    return Frame(opcode, payload).serialize(mask=False)


def line(gateway: GatewayProcess, path: str) -> dict[str, Any]:
    return dict(until(lambda: [each for each in gateway.access() if each["path"] == f"/ws/{path}"], "a line")[0])


def opened(client: Http2Client, path: str, *more: tuple[bytes, bytes], stream: int = 1) -> Answer:
    client.send(headers(stream, opening(path, *more), end=False))
    answer = client.head(stream)
    assert answer.status == 200, answer
    return answer


def test_it_is_announced(client: Http2Client) -> None:
    client.fence()
    assert client.settings[ENABLE_CONNECT_PROTOCOL] == 1


def test_messages_both_ways_and_goodbye(client: Http2Client, gateway: GatewayProcess) -> None:
    answer = opened(client, "echo", (b"sec-websocket-protocol", b"chat"), (b"origin", b"https://page.example"))
    names = [name for name, _ in answer.fields]
    assert answer.value(b"sec-websocket-protocol") == b"chat"
    assert b"x-request-id" in names
    assert not {b"sec-websocket-accept", b"upgrade", b"connection", b"content-length"} & set(names)
    expected = b""
    for payload in (b"a", b"\0\xff" * 5000, b"", b"c" * 200):
        client.send(data(1, message(payload)))
        expected += told(payload)
        assert client.data(1, len(expected)).body == expected
    goodbye = b"\x03\xe8over"
    client.send(data(1, message(goodbye, Opcode.CLOSE), end=True))
    assert client.answer().body == expected + told(goodbye, Opcode.CLOSE)
    assert client.answers[1].complete
    entry = line(gateway, "echo")
    assert (entry["status"], entry["method"], entry["service"]) == (101, "GET", "ws")
    assert entry["bytes_out"] == len(client.answers[1].body)
    client.lives()


def test_what_is_sent_before_the_tunnel_stands_is_not_lost(client: Http2Client) -> None:
    client.send(headers(1, opening("echo"), end=False), data(1, message(b"early")), data(1, message(b"birds")))
    expected = told(b"early") + told(b"birds")
    assert client.data(1, len(expected)).body == expected
    client.send(reset(1, CANCEL))
    client.lives()


def test_more_than_the_windows_both_ways(client: Http2Client) -> None:
    opened(client, "echo")
    payload = bytes(range(256)) * 2048
    whole = message(payload)
    expected = told(payload)
    sent = 0
    while sent < len(whole):
        own = client.settings[INITIAL_WINDOW_SIZE] + client.given.get(1, 0) - sent
        room = min(own, DEFAULT_WINDOW + client.given.get(0, 0) - sent, 16384)
        if room > 0:
            client.send(data(1, whole[sent : sent + room]))
            sent += room
        else:
            assert client.next() is not None
    client.send(window_update(0, len(expected)), window_update(1, len(expected)))
    assert client.data(1, len(expected)).body == expected


def test_the_service_says_goodbye(client: Http2Client) -> None:
    opened(client, "farewell")
    client.send(data(1, message(b"go", Opcode.TEXT)))
    closing = told(b"\x0f\xa1that is all", Opcode.CLOSE)
    assert client.data(1, len(closing)).body == closing
    client.send(data(1, message(b"\x0f\xa1", Opcode.CLOSE), end=True))
    assert client.answer().complete


def test_a_service_that_vanishes(client: Http2Client) -> None:
    opened(client, "vanish")
    client.send(data(1, message(b"go", Opcode.TEXT)))
    assert client.answer().over
    client.lives()


def test_a_client_that_resets_its_stream(client: Http2Client, chat: Chat, gateway: GatewayProcess) -> None:
    opened(client, "echo/reset", stream=1)
    client.send(reset(1, CANCEL))
    client.lives()
    until(lambda: chat.ended.get("/ws/echo/reset"), "the service hears of it")
    assert line(gateway, "echo/reset")["code"] == "client_gone"


def test_a_service_that_does_not_want_to_is_proxied_as_usual(client: Http2Client) -> None:
    client.send(headers(1, opening("refused"), end=False))
    answer = client.answer()
    assert (answer.status, answer.body) == (403, b"no\n")
    client.lives()


def test_a_service_that_answers_200_has_opened_no_tunnel(client: Http2Client, gateway: GatewayProcess) -> None:
    """To a CONNECT any 2xx would say that it has (RFC 9110 section 9.3.6)."""
    client.send(headers(1, opening("plain"), end=False))
    answer = client.answer()
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "upstream_invalid")
    client.lives()
    seen = line(gateway, "plain")
    assert (seen["status"], seen["code"]) == (502, "upstream_invalid")
    assert "invalid: it answered a CONNECT with 200 instead of switching protocols" in gateway.log()


def test_limits_apply_to_the_opening(client: Http2Client) -> None:
    for stream in (1, 3):
        client.send(headers(stream, opening("limited"), end=False))
    assert client.head(1).status in (200, 404)
    assert client.answer(3).status == 429


def test_another_protocol_is_not_known(client: Http2Client) -> None:
    client.send(headers(1, opening("echo", protocol=b"connect-udp"), end=False))
    assert client.answer().status == 501
    client.lives()


@pytest.mark.parametrize(
    "pseudo",
    [{"method": b"GET"}, {"scheme": None}, {"path": None}, {"authority": None}, {"path": b"ws/echo"}],
    ids=["get", "no scheme", "no path", "no authority", "path without slash"],
)
def test_an_opening_that_is_malformed(client: Http2Client, pseudo: dict[str, bytes | None]) -> None:
    client.send(headers(1, opening("echo", **pseudo), end=False))
    client.refuses(1, PROTOCOL_ERROR)
    client.lives()


def test_where_no_tunnels_are_allowed_it_is_not_announced(chat: Chat, tmp_path: Any) -> None:
    config = configuration({"ws": f"http://127.0.0.1:{chat.port}"}, {"requests": {"max_tunnels": 0}})
    with (
        GatewayProcess(tmp_path, config, ports=(GatewayProcess.TLS,)) as gateway,
        Http2Client.connect(gateway.ports[0], AUTHORITY).start() as client,
    ):
        client.fence()
        assert not client.settings.get(ENABLE_CONNECT_PROTOCOL)
        client.send(headers(1, opening("echo"), end=False))
        client.refuses(1, PROTOCOL_ERROR)
