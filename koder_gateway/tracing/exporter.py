"""The exporter: a process that builds OTLP from records and sends it, so that no request waits for either.

It does one thing at a time. While a batch is sent, or waits to be sent again, nothing is read from the gateway, which
then collects up to its bound: so memory is bounded here and there. When the gateway ends its side, by intention or by
its own end, the exporter sends what is left for two seconds and ends.
"""

from __future__ import annotations

import math
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from ..reactor.lower_priority import lower_priority
from ..wire.framed_messages import Messages, first_message, framed
from .collector import Collector, RefusedError
from .otlp import encoded, export_request
from .records import ExchangeRecord, Progress, Terms

# The most spans of a batch, and how many seconds its first one waits for others.
_BATCH: Final = 2048
_DELAY: Final = 1.0
_READ: Final = 1 << 18
# A record has little more than the head of a request; the gateway sends none that is larger than what it collects.
_LONGEST: Final = 1 << 20
# Seconds before a batch is tried again, doubled each time; Retry-After may ask for more, up to a bound.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_LONGEST_AFTER: Final = 120.0
# After so many seconds a batch is given up.
_PATIENCE: Final = 60.0
# How far its priority is below the gateway's (nice(2)).
_NICE: Final = 5
# Seconds from the end of the gateway's side to the end of the process.
END: Final = 2.0


class Exporter:
    """Reads records from `gateway`, a connected stream socket, sends them by `post`, and tells the gateway how that
    goes. `post` returns how many spans were rejected and raises RefusedError."""

    def __init__(
        self,
        gateway: socket.socket,
        post: Callable[[bytes], int],
        resource: list[tuple[str, str]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._post = post
        self._resource = resource
        self._records = Messages(ExchangeRecord, _LONGEST)
        self._now = now
        # The spans of each exchange. They are encoded as they come: little at a time leaves the processor to others.
        self._waiting: list[bytes] = []
        self._spans = 0
        self._ended = False
        self._failing = False
        self._pause = _FIRST_PAUSE
        self._earliest = -math.inf

    def take(self, data: bytes) -> None:
        """Bytes from the gateway."""
        for record in self._records.feed(data):
            self._waiting.append(encoded(record))
            self._spans += record.spans

    def run(self) -> None:
        """Export until the gateway's side has ended and nothing is left."""
        while not self._ended:
            self._gather()
            if self._waiting:
                self._send()

    def _gather(self) -> None:
        """Read until there is a batch, or what there is has waited for long enough."""
        due = self._now() + _DELAY if self._waiting else math.inf
        while self._spans < _BATCH and not self._ended:
            left = None if due == math.inf else max(0.0, due - self._now())
            if not select.select([self._gateway], [], [], left)[0]:
                return
            data = self._gateway.recv(_READ)
            self._ended = not data
            self.take(data)
            if due == math.inf and self._waiting:
                due = self._now() + _DELAY

    def _send(self) -> None:
        """Send what is there, again where that may help, and give it up where not."""
        body = export_request(self._waiting, self._resource)
        spans, begun = self._spans, self._now()
        self._waiting, self._spans = [], 0
        while True:
            # As long as the gateway's side is open: at the end there is no time to rest.
            _is_gone(self._gateway, self._earliest - self._now())
            try:
                rejected = min(spans, self._post(body))
            except RefusedError as refused:
                now = self._now()
                # While it fails, further batches come no sooner.
                pause = self._pause * random.uniform(0.75, 1.25)  # noqa: S311 (no secret)
                self._earliest = now + max(min(refused.after, _LONGEST_AFTER), pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                again = refused.again and self._earliest - begun < _PATIENCE and not _is_gone(self._gateway, 0.0)
                # No state to tell where it already failed.
                fault = None if self._failing else str(refused)
                self._failing = True
                self._tell(Progress(lost=0 if again else spans, failures=1, fault=fault))
                if not again:
                    return
            else:
                self._earliest, self._pause = -math.inf, _FIRST_PAUSE
                fault = "" if self._failing else None
                self._failing = False
                self._tell(Progress(exported=spans - rejected, lost=rejected, fault=fault))
                return

    def _tell(self, progress: Progress) -> None:
        """Tell the gateway, which may have ended."""
        try:
            self._gateway.sendall(framed(progress))
        except OSError:
            self._ended = True


def _is_gone(gateway: socket.socket, seconds: float | None) -> bool:
    """Whether the gateway's side has ended, be there more to read; waits so long for that (None: for ever)."""
    poll = select.poll()
    poll.register(gateway, select.POLLRDHUP)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


def _end_with(gateway: socket.socket) -> None:
    """End the process a while after the gateway's side has ended, whatever it waits for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    _is_gone(gateway, None)
    time.sleep(END)
    os._exit(0)


def main(gateway: socket.socket) -> None:
    """Export what comes from the gateway at the other end of `gateway`, until that ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # These are meant for the gateway, whose end is this one's, too.
        signal.signal(number, signal.SIG_IGN)
    lower_priority(_NICE)
    threading.Thread(target=_end_with, args=(gateway,), daemon=True).start()
    terms = first_message(gateway.recv, Terms, _LONGEST)
    if terms is None:
        return
    collector = Collector(terms.url, terms.headers, terms.ca, terms.timeout)
    Exporter(gateway, collector.post, terms.resource).run()
