"""The ACME process: it hears which names are wanted, and ends with its gateway.

Whatever it does is kept before the next step, so it may end at any moment; the next one goes on.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..reactor.lower_priority import lower_priority
from ..wire.framed_messages import Messages, first_message, framed
from .layout import Layout
from .messages import LONGEST_NAMES, Event, Names, Progress, Terms
from .reporting import Report

if TYPE_CHECKING:
    from .coordinator import Coordinator

_READ: Final = 1 << 18
# How far its priority is below the gateway's (nice(2)): signing must not slow requests. It is not the lowest, nor is
# its policy SCHED_IDLE: on a machine with other work it would have nothing for minutes, and challenges would fail.
_NICE: Final = 10
# Seconds before a state folder that cannot be used is looked at again.
_PAUSE: Final = 30.0


def main(gateway: socket.socket) -> None:
    """Order certificates for the gateway at the other end of `gateway`, until that ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # These are meant for the gateway, whose end is this one's, too.
        signal.signal(number, signal.SIG_IGN)
    lower_priority(_NICE)
    os.umask(0o077)
    terms = first_message(gateway.recv, Terms, LONGEST_NAMES)
    if terms is not None:
        _Process(gateway, terms).run()
    # Threads may wait for the authority.
    os._exit(0)


class _Process:
    def __init__(self, gateway: socket.socket, terms: Terms) -> None:
        self._gateway = gateway
        self._terms = terms
        self._names = Messages(Names, LONGEST_NAMES)
        self._waiting: list[Names] = []
        self._ended = False
        self._said = ""

    def run(self) -> None:
        """Until the gateway's side has ended."""
        coordinator = None
        while coordinator is None and not self._ended:
            coordinator = self._started()
            if coordinator is None:
                self._hear_until(time.monotonic() + _PAUSE)
        pause = 0.0
        while coordinator is not None and not self._ended:
            for message in self._take():
                coordinator.names(message)
            pause = coordinator.turn()
            self._hear(pause)
        if coordinator is not None:
            coordinator.end()

    def _started(self) -> Coordinator | None:
        """The coordinator; None where it cannot work, which the gateway is told."""
        try:
            from .assembly import assemble
        except Exception as error:
            self._say(f"its packages cannot be used ({type(error).__name__}: {error}); install koder-gateway[acme]")
            return None
        try:
            return assemble(self._terms, Layout(Path(self._terms.folder)), Report(self._send), random.random)
        except OSError as error:
            self._say(f"{error.filename}: {error.strerror}")
        except Exception as error:
            self._say(str(error))
        return None

    def _take(self) -> list[Names]:
        taken, self._waiting = self._waiting, []
        return taken

    def _hear(self, seconds: float) -> None:
        if self._waiting or not select.select([self._gateway], [], [], max(0.0, seconds))[0]:
            return
        data = self._gateway.recv(_READ)
        self._ended = not data
        self._waiting += self._names.feed(data)

    def _hear_until(self, due: float) -> None:
        while not self._ended and (left := due - time.monotonic()) > 0:
            waiting, self._waiting = self._waiting, []
            self._hear(left)
            self._waiting = [*waiting, *self._waiting]

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._send(Progress(events=[Event("error", f"certificates cannot be ordered: {text}")]))

    def _send(self, progress: Progress) -> None:
        """Tell the gateway, which may have ended."""
        try:
            self._gateway.sendall(framed(progress))
        except OSError:
            self._ended = True
