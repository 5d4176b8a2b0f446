"""Messages between two processes, in one."""

from __future__ import annotations

import contextlib
import socket

from koder_gateway.workers.channel import Channel, channel_pair


def test_messages_arrive_whole_and_in_order() -> None:
    one, other = channel_pair()
    one.send(notify="READY=1", status="serving")
    one.send(refusals=["a", "ä\n"])
    assert other.receive() == [{"notify": "READY=1", "status": "serving"}, {"refusals": ["a", "ä\n"]}]
    assert other.receive() == []
    one.close()
    assert other.receive() is None
    other.close()


def test_a_message_in_parts_is_kept_until_it_is_whole() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.send(b'{"do"')
    assert channel.receive() == []
    raw.send(b': "end"}\n{"do": "reload"}\n{')
    assert channel.receive() == [{"do": "end"}, {"do": "reload"}]
    raw.close()
    channel.close()


def test_what_does_not_fit_waits_and_is_sent_with_the_next() -> None:
    one, other = channel_pair()
    sent = 0
    while not one.blocked:
        one.send(number=sent, text="z" * 10_000)
        sent += 1
    numbers: list[int] = []
    while len(numbers) < sent + 1:
        received = other.receive()
        assert received is not None
        numbers += [message["number"] for message in received]
        if one.blocked:
            one.flush()
        elif sent not in numbers and len(numbers) == sent:
            one.send(number=sent)
    assert numbers == list(range(sent + 1))
    one.close()
    # Nothing to a process that has ended, and no exception.
    other.send(do="end")
    other.close()


def test_a_line_without_an_end_is_an_end() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.setblocking(False)
    received: list[object] | None = []
    while received is not None:
        with contextlib.suppress(BlockingIOError):
            raw.send(b"z" * 65536)
        received = channel.receive()
    raw.close()
    channel.close()
