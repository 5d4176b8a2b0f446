"""A WebSocket when the gateway ends: a Close frame in its place, and a moment for the goodbye."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from koder_gateway.upstream.websocket_end import WebSocketEnd
from koder_gateway.wire.websocket_frames import close_frame
from tests.kit.clients import HOST
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.waiting import PATIENCE

SMALL = b"\x82\x05hello"
LONG = b"\x82\x7e\x01\x00" + b"z" * 256


@pytest.mark.parametrize("first", [b"", SMALL, SMALL + LONG])
def test_between_two_frames_it_is_sent_at_once_and_nothing_after_it(first: bytes) -> None:
    sent: list[bytes] = []
    end = WebSocketEnd(sent.append, first)
    end.pass_on(SMALL)
    end.pass_on(LONG)
    end.end(1001)
    end.end(1008)
    end.pass_on(SMALL)
    assert b"".join(sent) == SMALL + LONG + close_frame(1001)


@pytest.mark.parametrize("cut", range(1, len(LONG)))
def test_within_a_frame_it_waits_for_its_end(cut: int) -> None:
    sent: list[bytes] = []
    end = WebSocketEnd(sent.append, b"")
    end.pass_on(SMALL + LONG[:cut])
    end.end(1001)
    assert not end.ended
    end.pass_on(LONG[cut:] + SMALL)
    assert end.ended
    assert b"".join(sent) == SMALL + LONG + SMALL + close_frame(1001)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_its_client_is_told_and_the_gateway_does_not_wait(tmp_path: Path, tls: bool) -> None:
    """The service hears of it by the client's own Close frame."""
    heard: list[int] = []
    ended = threading.Event()

    def echo(connection: ServerConnection) -> None:
        try:
            for message in connection:
                connection.send(message)
        except ConnectionClosed:
            pass
        heard.append(connection.close_code or 0)
        ended.set()

    with serve(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        config = configuration({"a": f"http://127.0.0.1:{port}"})
        with GatewayProcess(tmp_path, config, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS)) as gateway:
            stream = gateway.connect(tls=tls).socket
            with connect(f"ws://{HOST}/a", sock=stream, proxy=None) as client:
                client.send("hello")
                assert client.recv(PATIENCE) == "hello"
                gateway.signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(PATIENCE)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001
            assert gateway.process.wait(PATIENCE) == 0
        assert ended.wait(PATIENCE)
        server.shutdown()
    assert heard == [1001]
