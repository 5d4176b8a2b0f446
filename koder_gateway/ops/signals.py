"""Signals that arrive before they can be handled, which would end the process: they are held until then."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

Handler = Callable[[int, Any], object]
# Signals that end a process without a handler.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class HeldSignals:
    """Remembers whether a signal has arrived before it could be handled. Only the main thread may set handlers."""

    def __init__(self, number: signal.Signals) -> None:
        self.came = False
        self._number = number

    def hold(self) -> None:
        """Hold the signal from now on. A process that ignores it (nohup) continues to do so until `release`."""
        if signal.getsignal(self._number) in _DEFAULTS:
            signal.signal(self._number, self._remember)

    def release(self, handler: Handler, *, beside: bool = False) -> None:
        """Pass the signal to `handler` from now on. A held signal is passed on once, however often it arrived.
        `beside`: a handler that somebody else has set since the hold gets it as well."""
        other = signal.getsignal(self._number)
        if beside and callable(other) and other not in (*_DEFAULTS, self._remember):
            handler = _both(other, handler)
        signal.signal(self._number, handler)
        if self.came:
            self.came = False
            handler(self._number, None)

    def _remember(self, number: int, frame: object) -> None:
        self.came = True


def _both(first: Handler, second: Handler) -> Handler:
    def pass_on(number: int, frame: object) -> None:
        first(number, frame)
        second(number, frame)

    return pass_on


# Signals belong to the process, and so do the held ones.
HANGUP = HeldSignals(signal.SIGHUP)
REOPEN = HeldSignals(signal.SIGUSR1)
ENDS = (HeldSignals(signal.SIGTERM), HeldSignals(signal.SIGINT))
