"""What the exporter does with records and with a collector's moods."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from koder_gateway.tracing import exporter as module
from koder_gateway.tracing.collector import RefusedError
from koder_gateway.tracing.exporter import Exporter
from koder_gateway.tracing.records import ExchangeRecord, Progress
from koder_gateway.wire.framed_messages import Messages, framed
from tests.kit.span_collector import spans_in
from tests.kit.waiting import PATIENCE, until
from tests.tracing.test_otlp import PLAIN

RECORD = framed(ExchangeRecord(**PLAIN))


class Running:
    """An exporter in a thread, before a collector that is a function: called with the number of each request."""

    def __init__(self, answer: Callable[[int], int]) -> None:
        self.near, self.far = socket.socketpair()
        self.near.settimeout(PATIENCE)
        self.posts: list[int] = []
        self._answer = answer
        self._messages = Messages(Progress, 4096)
        self.thread = threading.Thread(
            target=Exporter(
                self.far,
                self._post,
                [],
            ).run,
            daemon=True,
        )
        self.thread.start()

    def _post(self, body: bytes) -> int:
        self.posts.append(len(spans_in(ExportTraceServiceRequest.FromString(body))))
        return self._answer(len(self.posts))

    def next(self) -> Progress:
        """What it says next."""
        while True:
            for progress in self._messages.feed(self.near.recv(1)):
                return progress

    def end(self) -> None:
        """The gateway's side ends, and the exporter with it."""
        self.near.shutdown(socket.SHUT_WR)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], int]], Running]]:
    """Starts an exporter whose pauses are short."""
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(module, "_DELAY", 0.01)
    started: list[Running] = []

    def start(answer: Callable[[int], int]) -> Running:
        started.append(Running(answer))
        return started[-1]

    yield start
    for each in started:
        if each.thread.is_alive():
            each.end()
        each.near.close()
        each.far.close()


def failing(times: int, *, again: bool = True, after: float = 0.0) -> Callable[[int], int]:
    """A collector that refuses so many requests first."""

    def answer(number: int) -> int:
        if number <= times:
            raise RefusedError(f"it answers {number}", again=again, after=after)
        return 0

    return answer


def test_what_comes_together_goes_together(run: Callable[..., Running]) -> None:
    exporter = run(lambda number: 0)
    exporter.near.sendall(RECORD * 5)
    assert exporter.next() == Progress(exported=10)
    assert exporter.posts == [10]


def test_a_batch_is_bounded(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 4)
    monkeypatch.setattr(module, "_READ", len(RECORD))
    exporter = run(lambda number: 0)
    exporter.near.sendall(RECORD * 5)
    assert [exporter.next().exported for _ in range(3)] == [4, 4, 2]


def test_a_failure_is_told_once_and_the_batch_is_tried_again(run: Callable[..., Running]) -> None:
    exporter = run(failing(3))
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(failures=1, fault="it answers 1")
    assert [exporter.next(), exporter.next()] == [Progress(failures=1)] * 2
    assert exporter.next() == Progress(exported=2, fault="")
    assert exporter.posts == [2] * 4
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(exported=2)


def test_what_may_not_be_tried_again_is_lost(run: Callable[..., Running]) -> None:
    exporter = run(failing(1, again=False))
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(lost=2, failures=1, fault="it answers 1")
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(exported=2, fault="")


def test_a_batch_is_given_up_in_time(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    exporter = run(failing(1))
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(lost=2, failures=1, fault="it answers 1")


def test_rejected_spans_are_lost(run: Callable[..., Running]) -> None:
    exporter = run(lambda number: 1)
    exporter.near.sendall(RECORD)
    assert exporter.next() == Progress(exported=1, lost=1)


def test_nothing_is_read_while_it_fails(run: Callable[..., Running]) -> None:
    """So the memory that it takes is bounded by what one batch is."""
    held, go = threading.Event(), threading.Event()

    def answer(number: int) -> int:
        held.set()
        assert go.wait(PATIENCE)
        return 0

    exporter = run(answer)
    exporter.near.sendall(RECORD)
    assert held.wait(PATIENCE)
    exporter.near.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 64 << 20:
            sent += exporter.near.send(RECORD)
    assert sent < 16 << 20
    go.set()
    exporter.near.settimeout(PATIENCE)
    total = 0
    while total < 2 * (1 + sent // len(RECORD)):
        total += exporter.next().exported
    # The last record may have been cut by the full buffer.
    exporter.near.sendall(RECORD[sent % len(RECORD) :] if sent % len(RECORD) else RECORD)


def test_at_the_end_what_is_left_is_sent(run: Callable[..., Running]) -> None:
    exporter = run(lambda number: 0)
    exporter.near.sendall(RECORD * 3)
    exporter.end()
    assert sum(exporter.posts) == 6


def test_at_the_end_nothing_is_tried_twice(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 1000.0)
    monkeypatch.setattr(module, "_PATIENCE", 1e9)
    exporter = run(failing(1000))
    exporter.near.sendall(RECORD)
    until(lambda: exporter.posts, "it has tried")
    exporter.end()
    assert len(exporter.posts) <= 2


def test_retry_after_is_waited_for(run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(module, "_is_gone", lambda gateway, seconds: waited.append(seconds) or False)
    monkeypatch.setattr(module, "_PATIENCE", 1e9)
    exporter = run(failing(2, after=500.0))
    exporter.near.sendall(RECORD)
    for _ in range(3):
        exporter.next()
    # At most two minutes of what it asks for.
    assert sum(110 < seconds <= 120 for seconds in waited) == 2
