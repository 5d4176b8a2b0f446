"""The greeting to the store: who the gateway is, the scripts, and a first decision, to see that it can decide."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from ..policy.shared_store import SharedRule
from .resp import ErrorReply, Reply, command
from .scripts import SCRIPTS, DecideCommand

# Its buckets are full again, and so gone, after a millisecond.
_PROBE: Final = SharedRule(b"probe", 1000.0, 1, 1, enforced=True, afterwards=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the gateway introduces itself: `user` and `password` (b"" for none), and the number of the database."""

    user: bytes = b""
    password: bytes = field(default=b"", repr=False)
    database: int = 0

    def commands(self) -> list[tuple[bytes, bytes]]:
        """The commands, and what is expected of each."""
        commands = []
        if self.password:
            commands.append((command(b"AUTH", *([self.user] if self.user else []), self.password), b"OK"))
        if self.database:
            commands.append((command(b"SELECT", b"%d" % self.database), b"OK"))
        return commands


class Greeting:
    """One greeting. `text` is sent in one write; each reply goes to `fault`, until it is `complete`.

    The decision is about two buckets below `prefix`, of nobody: so a replica, a server that is full and one of a
    cluster are found out before a request waits for them.
    """

    __slots__ = ("_expected", "complete", "text")

    def __init__(self, credentials: Credentials, prefix: bytes) -> None:
        commands = credentials.commands()
        commands += [(script.load(), script.digest) for script in SCRIPTS]
        self._expected = deque(expected for _, expected in commands)
        probe = DecideCommand((_PROBE, _PROBE))((prefix + b"probe-1", prefix + b"probe-2"), (0.0, 0.0))
        self.text = b"".join([text for text, _ in commands]) + probe
        self.complete = False

    def fault(self, reply: Reply) -> str:
        """What is wrong with the next reply, "" for nothing."""
        if isinstance(reply, ErrorReply):
            return f"it answers {reply}"
        if self._expected:
            return "" if reply == self._expected.popleft() else "it does not greet as Redis does"
        self.complete = isinstance(reply, list) and len(reply) == 2
        return "" if self.complete else "it does not decide as Redis does"
