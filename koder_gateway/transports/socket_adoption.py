"""Passes a connected socket to uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import Any

from koder_gateway.transports.stream import StreamTransport


def hand_over(loop: asyncio.AbstractEventLoop, connected: socket.socket, transport: StreamTransport) -> None:
    """Let uvloop own this socket; `transport.connection_made` follows in the next iteration of the loop.

    uvloop offers this only as a coroutine, which waits once until `connection_made` has been called. A task would
    take two iterations and do nothing else.
    """
    coroutine: Any = loop.connect_accepted_socket(lambda: transport, connected)
    coroutine.send(None).add_done_callback(partial(_finish, coroutine))


def _finish(coroutine: Any, made: asyncio.Future[Any]) -> None:
    # RuntimeError: the transport was closed in connection_made, and its protocol has been notified.
    with contextlib.suppress(StopIteration, RuntimeError):
        coroutine.send(None)
