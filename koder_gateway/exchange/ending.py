"""The end of an exchange: what it owes the limits, what it counts as, and its line in the access log. Once each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import Refusal
from ..policy.decision import charges_refusal
from ..policy.limits import Limiter
from .states import EVENTS, Exchange
from .tracing import decide


class ExchangeCounts(Protocol):
    """Counts exchanges."""

    __slots__ = ()

    def observe(self, exchange: Exchange, seconds: float) -> None:
        """One has ended, so many seconds after it began."""

    def refuse(self, code: str) -> None:
        """It has ended with this code: a refusal's, or how it ended without a whole response."""


class ExchangeLines(Protocol):
    """An access log."""

    __slots__ = ()

    def line(self, exchange: Exchange, limit: str, now: float, ended: float) -> None:
        """One exchange has ended: at `now`, in seconds since the epoch, or `ended` in monotonic seconds. `limit` is
        the rule that has refused it, "" for none."""


class ExchangeSpans(Protocol):
    """Takes the spans of exchanges."""

    __slots__ = ()

    def spans(self, exchange: Exchange, now: float, ended: float) -> None:
        """A sampled exchange has ended; the times are those of `ExchangeLines.line`."""


def goes_unanswered(exchange: Exchange, refusal: Refusal) -> bool:
    """Note the refusal with which an exchange ends, and charge the limit on refusals. True: this client has had so
    many refusals that it gets no further response."""
    exchange.code = refusal.code
    context = exchange.context
    return charges_refusal(refusal) and context.policy.limiter.refused(context.key, exchange.started)


def settle(exchange: Exchange, now: float, *, ended: bool = True) -> None:
    """Charge the limits on failures, once it is known whether the exchange was one, and count it no longer as in
    flight if it has `ended`. `now` is monotonic seconds."""
    verdict = exchange.charges
    if verdict is not None:
        exchange.charges = None if ended else verdict.still_in_flight()
        # Besides refusals' codes there are those of exchanges that ended within a service's response.
        served = not exchange.excused and (not exchange.code or exchange.code in EVENTS)
        Limiter.settle(verdict, exchange.status, served, now, ended)


class Ending:
    """`finished` is called once for every exchange. `monotonic` gives monotonic seconds, `epoch` those since the
    epoch. A subclass may set `lines`, and its owner `tracing`."""

    lines: ExchangeLines | None = None
    tracing: ExchangeSpans | None = None

    def __init__(self, counts: ExchangeCounts, monotonic: Callable[[], float], epoch: Callable[[], float]) -> None:
        self._counts = counts
        self._monotonic = monotonic
        self._epoch = epoch

    def finished(self, exchange: Exchange) -> None:
        """Settle, count, trace, log."""
        # In two steps, as in `tls.stream`.
        monotonic = self._monotonic
        now = monotonic()
        verdict = exchange.charges
        limit = ""
        if verdict is not None:
            if verdict.refused is not None:
                limit = verdict.refused.name
            if verdict.pending:
                settle(exchange, now)
        code = exchange.code
        self._counts.observe(exchange, now - exchange.started)
        if code:
            self._counts.refuse(code)
        tracing = self.tracing
        if tracing is not None and (exchange.trace is not None or not exchange.trace_id):
            self._trace(tracing, exchange, now)
        lines = self.lines
        if lines is not None:
            epoch = self._epoch
            lines.line(exchange, limit, epoch(), now)

    def _trace(self, tracing: ExchangeSpans, exchange: Exchange, now: float) -> None:
        """Hand over what is recorded. Of one that no service was asked for it has not been decided yet."""
        if exchange.trace is None:
            sampler = exchange.context.policy.sampler
            if sampler is None or decide(exchange, sampler) is None:
                return
        epoch = self._epoch
        tracing.spans(exchange, epoch(), now)
