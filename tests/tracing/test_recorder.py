"""Records on their way to the exporter: complete, in order, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.exchange.states import Exchange
from koder_gateway.exchange.trace import Attempt, ExchangeTrace
from koder_gateway.tracing.recorder import BOUND, SpanRecorder
from koder_gateway.tracing.records import ExchangeRecord
from koder_gateway.wire.framed_messages import Messages
from tests.exchange.test_ending import exchange

LONGEST = 1 << 20


def sampled(path: bytes = b"/v1/users?token=secret", attempts: int = 1) -> Exchange:
    made = exchange()
    made.head.path = path
    made.trace_id = b"1" * 32
    made.trace = ExchangeTrace(b"2" * 16, b"", 3, b"3" * 16)
    made.trace.attempts = [Attempt(b"3" * 16, "http://127.0.0.1:4001", 100.0) for _ in range(attempts)]
    return made


class Pipe:
    """Takes so many bytes at each write."""

    def __init__(self, room: int = LONGEST * 8) -> None:
        self.room = room
        self.taken = bytearray()
        self.writes = 0

    def write(self, data: bytes) -> int:
        self.writes += 1
        self.taken += data[: self.room]
        return min(len(data), self.room)

    def records(self) -> list[ExchangeRecord]:
        return list(Messages(ExchangeRecord, LONGEST).feed(bytes(self.taken)))


@given(st.integers(1, 300), st.integers(1, 40))
def test_records_arrive_whole_and_in_order_whatever_is_accepted_at_once(room: int, count: int) -> None:
    pipe = Pipe(room)
    recorder = SpanRecorder(pipe.write)
    for number in range(count):
        recorder.spans(sampled(b"/%d" % number), 1000.0, 101.0)
    while recorder.waiting:
        recorder.flush()
    assert [record.path for record in pipe.records()] == [b"/%d" % number for number in range(count)]
    assert (recorder.collected, recorder.dropped) == (2 * count, 0)


def test_an_exchange_that_is_not_sampled_is_not_recorded() -> None:
    pipe = Pipe()
    recorder = SpanRecorder(pipe.write)
    recorder.spans(exchange(), 1000.0, 101.0)
    recorder.flush()
    assert (recorder.collected, pipe.taken) == (0, b"")


def test_no_query_leaves_the_gateway() -> None:
    pipe = Pipe()
    recorder = SpanRecorder(pipe.write)
    recorder.spans(sampled(b"/a?token=secret"), 1000.0, 101.0)
    recorder.flush()
    assert b"secret" not in pipe.taken


def test_one_exchange_writes_nothing_and_many_are_written_together() -> None:
    pipe = Pipe()
    recorder = SpanRecorder(pipe.write)
    recorder.spans(sampled(), 1000.0, 101.0)
    assert pipe.writes == 0
    for _ in range(1000):
        recorder.spans(sampled(), 1000.0, 101.0)
    assert 1 < pipe.writes < 20


def test_what_nobody_takes_is_bounded_and_counted() -> None:
    pipe = Pipe(0)
    recorder = SpanRecorder(pipe.write)
    for _ in range(6000):
        recorder.spans(sampled(attempts=2), 1000.0, 101.0)
    assert recorder.waiting <= BOUND
    assert recorder.waiting > BOUND - 1000
    assert recorder.dropped > 0
    assert recorder.collected + recorder.dropped == 3 * 6000
    # Nor does it try to write each time, now that nothing is accepted.
    assert pipe.writes < 100
    pipe.room = LONGEST * 8
    recorder.flush()
    recorder.spans(sampled(), 1000.0, 101.0)
    recorder.flush()
    assert recorder.waiting == 0
    assert len(pipe.records()) == recorder.collected // 3 + 1


def test_a_record_that_is_too_large_is_dropped() -> None:
    pipe = Pipe()
    recorder = SpanRecorder(pipe.write)
    recorder.spans(sampled(b"/" + b"x" * BOUND), 1000.0, 101.0)
    recorder.spans(sampled(b"/y"), 1000.0, 101.0)
    recorder.flush()
    assert [record.path for record in pipe.records()] == [b"/y"]
    assert recorder.dropped == 2
