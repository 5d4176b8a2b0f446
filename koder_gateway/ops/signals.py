"""SIGHUP before there is anything to reload: without a handler it would end the process, so it is held until then."""

from __future__ import annotations

import signal
from collections.abc import Callable

Handler = Callable[[int, object], None]


class Held:
    """Whether SIGHUP has come while nobody could act on it. Only the main thread may set handlers."""

    def __init__(self) -> None:
        self.came = False

    def hold(self) -> None:
        """From now on remember it. A process that was told to ignore it (nohup) goes on doing so until `release`."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._remember)

    def release(self, handler: Handler) -> None:
        """From now on it is `handler`'s, which is called for what came early, once however often that was."""
        signal.signal(signal.SIGHUP, handler)
        if self.came:
            self.came = False
            handler(signal.SIGHUP, None)

    def _remember(self, number: int, frame: object) -> None:
        self.came = True


# Signals are the process's, and so is what is held of them.
HANGUP = Held()
