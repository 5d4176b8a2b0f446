"""The command `koder-gateway`: the daemon in the foreground, and its tools.

Nothing slow is imported before the signal handler is set: an earlier SIGHUP ends the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from signal import SIGPIPE

from .ops.signals import HANGUP


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon or one tool; the exit code is 0, 1 after a fault, and 2 for a wrong command line, and that
    of SIGPIPE where nobody reads the output."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:
        HANGUP.hold()
        return _run(words[1:])
    from .tools import use

    try:
        try:
            return use(words)
        finally:
            # Here, and not when the interpreter ends, which could only complain.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Who reads the output wants no more of it, as in `koder-gateway limits | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + SIGPIPE


def _run(words: list[str]) -> int:
    """Run the daemon in the foreground until it ends."""
    from twisted.python.usage import UsageError

    from .ops.console import say
    from .tap import Options

    class Words(Options):
        synopsis = f"Usage: koder-gateway run {Options.synopsis}"

    try:
        Words().parseOptions(words)
    except UsageError as error:
        say(f"koder-gateway run: {error}\nTry: koder-gateway run --help")
        return 2
    from twisted.scripts import twistd

    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "koder-gateway", *words]
    twistd.run()
    return 0
