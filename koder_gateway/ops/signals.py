"""Signals that come before anybody can act on them, which would end the process: they are held until then."""

from __future__ import annotations

import signal
from collections.abc import Callable

Handler = Callable[[int, object], None]
# What ends a process that has set nothing else.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Held:
    """Whether a signal has come while nobody could act on it. Only the main thread may set handlers."""

    def __init__(self, number: signal.Signals) -> None:
        self.came = False
        self._number = number

    def hold(self) -> None:
        """From now on remember it. A process that was told to ignore it (nohup) goes on doing so until `release`."""
        if signal.getsignal(self._number) in _DEFAULTS:
            signal.signal(self._number, self._remember)

    def release(self, handler: Handler) -> None:
        """From now on it is `handler`'s, which is called for what came early, once however often that was."""
        signal.signal(self._number, handler)
        if self.came:
            self.came = False
            handler(self._number, None)

    def _remember(self, number: int, frame: object) -> None:
        self.came = True


# Signals are the process's, and so is what is held of them.
HANGUP = Held(signal.SIGHUP)
ENDS = (Held(signal.SIGTERM), Held(signal.SIGINT))
