"""Frames in any order, with any flags, on any stream: the gateway answers within the rules or ends the connection.

Properties: whatever comes, `Http2Client` finds nothing to object to in what the gateway sends, the recording service
gets whole and well-formed messages or none, the log has no traceback, and another client is served.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    END_STREAM,
    INITIAL_WINDOW_SIZE,
    KEPT,
    NEVER,
    PLAIN,
    block,
    continuation,
    data,
    frame,
    goaway,
    headers,
    indexed,
    literal,
    ping,
    priority,
    reset,
    table_size,
    weight,
    window_update,
)
from tests.kit.http2_frames import settings as settings_frame
from tests.kit.recording import HOST, running

PATH = b"/v1/users"
REQUEST = block([(b":method", b"POST"), (b":scheme", b"https"), (b":path", PATH), (b":authority", HOST)])
WHOLE = headers(99, block([(b":method", b"GET"), (b":scheme", b"https"), (b":path", PATH), (b":authority", HOST)]))

streams = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7])
small = st.binary(max_size=40)
flags = st.integers(0, 255)
names = st.sampled_from(
    [b"x-a", b"cookie", b"host", b"content-length", b"te", b":path", b":test", b"X-A", b"a b", b""]
)
values = st.sampled_from([b"1", b"4", b"", b"a\r\nb: c", b"trailers", b"koder.id.koder.dev", b" a", b"\0"])
fields = st.one_of(
    st.builds(literal, names, values, st.sampled_from([KEPT, PLAIN, NEVER]), huffman=st.booleans()),
    st.builds(indexed, st.integers(0, 70)),
    st.builds(table_size, st.sampled_from([0, 1, 4096, 5000])),
    small,
)
blocks = st.one_of(
    st.just(REQUEST), st.builds(lambda more: REQUEST + b"".join(more), st.lists(fields, max_size=3)), small
)
increments = st.sampled_from([0, 1, 100, 65535, (1 << 31) - 1])
options = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 6, 8, 99]), st.sampled_from([0, 1, 2, 100, 16384, 65535, 1 << 31])
)
frames = st.one_of(
    st.builds(data, streams, small, end=st.booleans(), pad=st.none() | st.integers(0, 9)),
    st.builds(headers, streams, blocks, end=st.booleans(), done=st.sampled_from([True, True, False])),
    st.builds(headers, streams, blocks, pad=st.integers(0, 9), priority=st.builds(weight, streams)),
    st.builds(continuation, streams, blocks, done=st.booleans()),
    st.builds(priority, streams, st.builds(weight, streams, exclusive=st.booleans())),
    st.builds(reset, streams, st.integers(0, 20)),
    st.builds(lambda values: settings_frame(*values), st.lists(options, max_size=3)),
    st.builds(ping, st.binary(min_size=8, max_size=8)),
    st.builds(goaway, st.integers(0, 20), st.integers(0, 9), small),
    st.builds(window_update, streams, increments),
    st.builds(frame, st.integers(0, 20), flags, streams, small),
)  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), secure=True) as gateway:
        yield gateway
        gateway.assert_quiet()


def sound(gateway) -> None:
    """The gateway is as it was: it serves, has logged nothing alarming, and the service got nothing odd."""
    with Http2Client.connect(gateway.port, HOST) as other:
        other.start().send(WHOLE)
        assert other.answer(99).status == 200
    assert gateway.origin.faults == []
    gateway.assert_quiet()


def finish(client: Http2Client) -> None:
    """Read what the gateway says of it; it lives, or ends the connection, or waits for the rest of a frame."""
    client.send(ping(b"the last"))
    # Where nothing comes it waits: the last frame was not whole, or a field block is not.
    while not client.ended and client.comes(0.2) and client.last.payload != b"the last":
        pass


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sent=st.lists(frames, max_size=12), windows=st.sampled_from([0, 1, 65535]), whole=st.booleans())
def test_frames_in_any_order(gateway, sent, windows, whole):
    with Http2Client.connect(gateway.port, HOST) as client:
        client.start((INITIAL_WINDOW_SIZE, windows))
        if whole:
            client.send(*sent)
        else:
            for each in sent:
                client.send(each)
        finish(client)
    sound(gateway)


CONVERSATION = b"".join(
    [
        headers(1, REQUEST + literal(b"x-a", b"b", KEPT), end=False),
        data(1, b"some"),
        ping(),
        headers(3, REQUEST + indexed(62), end=False, done=False),
        continuation(3, literal(b"x-c", b"d", huffman=True)),
        data(3, b"more", end=True, pad=3),
        settings_frame((INITIAL_WINDOW_SIZE, 10)),
        window_update(1, 100),
        data(1, b"body", end=True),
        window_update(0, 100),
        headers(5, REQUEST, priority=weight(3)),
        reset(5),
        frame(0x22, END_STREAM, 7, b"unknown"),
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(CONVERSATION) - 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, len(CONVERSATION)),
)
def test_bytes_changed_anywhere(gateway, changes, cut):
    """A conversation with some of its bytes changed, in two pieces."""
    spoilt = bytearray(CONVERSATION)
    for position, byte in changes:
        spoilt[position] = byte
    with Http2Client.connect(gateway.port, HOST) as client:
        client.start()
        client.remember(bytes(spoilt))
        client.send_raw(bytes(spoilt[:cut]))
        client.send_raw(bytes(spoilt[cut:]))
        finish(client)
    sound(gateway)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_pieces_of_any_size(gateway, pieces):
    """The same conversation means the same however it is cut."""
    gateway.origin.settle()
    gateway.origin.forget()
    with Http2Client.connect(gateway.port, HOST) as client:
        client.start()
        position = 0
        client.remember(CONVERSATION)
        for size in pieces:
            client.send_raw(CONVERSATION[position : position + size])
            position += size
        client.send_raw(CONVERSATION[position:])
        assert client.answer(1).status == client.answer(3).status == 200
        client.lives()
    gateway.origin.settle()
    bodies = sorted(message.body for message in gateway.origin.messages if message.body)
    assert bodies == [b"more", b"somebody"]
