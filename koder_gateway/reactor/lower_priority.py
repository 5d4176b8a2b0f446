"""The priority of a helper process below that of its gateway."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUP = Path("/proc/self/autogroup")


def lower_priority(by: int) -> None:
    """Let the gateway go first on a processor that both want: `by` as for nice(2), which counts within a session
    alone where Linux groups processes by session (sched(7), "The autogroup feature"). A helper process has a session
    of its own, which gets the same value."""
    with suppress(OSError):
        os.nice(by)
    with suppress(OSError):
        _GROUP.write_text(str(by))
