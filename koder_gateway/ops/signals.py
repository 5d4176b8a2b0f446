"""Signals that arrive before they can be handled, which would end the process: they are held until then."""

from __future__ import annotations

import signal
from collections.abc import Callable

Handler = Callable[[int, object], None]
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

    def release(self, handler: Handler) -> None:
        """Pass the signal to `handler` from now on. A held signal is passed on once, however often it arrived."""
        signal.signal(self._number, handler)
        if self.came:
            self.came = False
            handler(self._number, None)

    def _remember(self, number: int, frame: object) -> None:
        self.came = True


# Signals belong to the process, and so do the held ones.
HANGUP = HeldSignals(signal.SIGHUP)
ENDS = (HeldSignals(signal.SIGTERM), HeldSignals(signal.SIGINT))
