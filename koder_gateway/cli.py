"""The command `koder-gateway`: the daemon in the foreground, and its tools.

Nothing slow is imported before a handler stands: a SIGHUP that comes earlier ends the process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .ops.signals import HANGUP


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the daemon, or run one tool; the exit code is 0, 1 when there is a fault, and 2 for words that are no
    command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"]:
        HANGUP.hold()
        return _run(words[1:])
    from .tools import use

    return use(words)


def _run(words: list[str]) -> int:
    """Be the daemon, in the foreground, until it has ended."""
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
