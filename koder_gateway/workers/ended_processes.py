"""The children of this process that have ended (waitpid(2)); in a container also those of others."""

from __future__ import annotations

import os
from collections.abc import Iterator


def ended_processes() -> Iterator[tuple[int, int]]:
    """Each of them, once, with its exit code; a negative one is the signal that has killed it. Does not wait."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)
