"""Signals as something to select on, beside sockets."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


class SignalReader:
    """Takes these signals from now on, also where they have been blocked: its descriptor is readable when some have
    arrived."""

    def __init__(self, numbers: Iterable[int]) -> None:
        numbers = tuple(numbers)
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._before = {number: signal.signal(number, _noted) for number in numbers}
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._woken.fileno()

    def receive(self) -> list[int]:
        """The signals that have arrived, each once."""
        with suppress(BlockingIOError):
            return sorted(set(self._woken.recv(4096)))
        return []

    def close(self) -> None:
        """Handle these signals as before."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._woken.close()
        self._wakes.close()


def _noted(number: int, frame: Any) -> None:
    """The number has been written to the wake-up descriptor."""
