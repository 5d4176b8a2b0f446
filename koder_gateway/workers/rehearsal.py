"""The process that tries whether the next generation could start, before this one gives way to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from .bound_ports import BoundPort
from .generation import rehearse

# Seconds that it may take, as long as systemd allows a unit for its start by default: one that waits for ever, as for
# a file on a server that is away, would keep every later generation waiting too.
_LONGEST: Final = 90


class Rehearsal:
    """At most one at a time; true while it runs. The kernel ends one that takes too long, also when nobody supervises
    it any more."""

    def __init__(self, longest: int = _LONGEST) -> None:
        """`longest`: how many seconds it may take."""
        self._longest = longest
        self._process: subprocess.Popen[bytes] | None = None

    def __bool__(self) -> bool:
        return self._process is not None

    def begin(self, ports: Sequence[BoundPort]) -> None:
        """Begin to try it. Raises OSError."""
        self._process = rehearse(ports, self._longest)

    def ended(self, pid: int, code: int) -> str | None:
        """A process has ended. Returns why the next generation could not start, "" if it could; None if the process
        was another one."""
        if self._process is None or pid != self._process.pid:
            return None
        # Whoever has waited for it knows; nobody else is to.
        self._process.returncode = code
        self._process = None
        if code == -signal.SIGALRM:
            return f"trying it took longer than {self._longest} s"
        if code < 0:
            return f"trying it was ended by {signal.Signals(-code).name}"
        return "it could not start, for the reasons above" if code else ""

    def stop(self) -> None:
        """End it; nobody is interested any more."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
