"""The end of each exchange: what it owes the limits, what it counts as, and its line in the access log."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..config import LogSettings
from ..exchange.states import EVENTS, Exchange
from ..policy.limits import Limiter
from .access_log import AccessLog, LogTarget, open_target
from .metrics import Counters


class Ledger:
    """`finished` is called once for every exchange. `now` gives monotonic seconds. Raises AccessLogError where the
    log cannot be opened."""

    def __init__(self, counters: Counters, settings: LogSettings, now: Callable[[], float]) -> None:
        self._counters = counters
        self._now = now
        self._settings = settings
        self._dropped_before = 0
        self._target: LogTarget | None = None
        self._access: AccessLog | None = None
        self._use(open_log(settings))

    def finished(self, exchange: Exchange) -> None:
        """Charge what is owed, count, log."""
        # In two steps, as in `tls.stream`.
        monotonic = self._now
        now = monotonic()
        code = exchange.code
        verdict = exchange.charges
        if verdict is not None and verdict.pending:
            # Besides refusals' codes there are those of exchanges that ended within an answer of the service's.
            served = not exchange.excused and (not code or code in EVENTS)
            Limiter.settle(verdict, exchange.status, served, now)
        duration = now - exchange.started
        self._counters.observe(exchange.service, exchange.status, duration, exchange.bytes_in, exchange.bytes_out)
        if code:
            self._counters.refuse(code)
        if self._access is not None:
            head = exchange.head
            self._access.line(
                time.time(),
                exchange.request_id,
                exchange.tenant,
                exchange.peer,
                head.method,
                head.path,
                exchange.route,
                exchange.service,
                exchange.status,
                code,
                exchange.bytes_in,
                exchange.bytes_out,
                duration,
                head.host,
            )

    @property
    def dropped(self) -> int:
        """Lines that were lost."""
        return self._dropped_before + (self._access.dropped if self._access is not None else 0)

    def flush(self) -> None:
        """Hand over the lines that have gathered."""
        if self._access is not None:
            self._access.flush()

    def opened_for(self, settings: LogSettings) -> LogTarget | None:
        """The target that other settings ask for, open; None where nothing has to be opened for them. Raises
        AccessLogError, and then everything is as before."""
        return None if settings == self._settings else open_log(settings)

    def follow(self, settings: LogSettings, target: LogTarget | None) -> None:
        """Log as these settings say, to the `target` that `opened_for` gave; the same file is opened anew, since it
        may have been rotated away."""
        self.flush()
        if settings == self._settings:
            if self._target is not None:
                self._target.reopen()
            return
        if self._access is not None:
            self._dropped_before += self._access.dropped + self._access.waiting
        if self._target is not None:
            self._target.close()
        self._settings = settings
        self._use(target)

    def _use(self, target: LogTarget | None) -> None:
        self._target = target
        self._access = None if target is None else AccessLog(target)


def open_log(settings: LogSettings) -> LogTarget | None:
    """The access log's target, None where there is to be no log. Raises AccessLogError."""
    return open_target(settings.file) if settings.access else None
