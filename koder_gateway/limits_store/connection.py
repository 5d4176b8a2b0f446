"""A connection to the store: commands and their answers, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..reactor.turns import ARRIVALS, turns_of
from .greeting import Greeting
from .resp import BadReply, ErrorReply, Reply, ReplyReader
from .scripts import SCRIPTS

# Commands whose answers may be waited for at once.
MOST: Final = 8192
# Gets the numbers of an answer, or None where there will be none.
Answered = Callable[[list[int] | None], None]


class _Asked:
    """A command that waits for its answer until `until` (monotonic seconds). With `repeated` the server has not
    known its script, and it was sent again. Without `answered` it is such a script, which was sent before it."""

    __slots__ = ("answered", "repeated", "text", "until")

    def __init__(self, text: bytes, until: float, answered: Answered | None) -> None:
        self.text = text
        self.until = until
        self.answered = answered
        self.repeated = False


class StoreConnection(Protocol):
    """Sends the greeting, and then commands, those of one turn of the reactor in one write.

    `ready` is called when the greeting is answered. `lost` is called once, at the end, with the reason in a few
    words. A command that is not answered within `timeout` seconds ends the connection, as does an error, and whatever
    is no answer at all. Every command is answered: with None if the connection ends before.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        time: Callable[[], float],
        greeting: Greeting,
        timeout: float,
        ready: Callable[[StoreConnection], None],
        lost: Callable[[StoreConnection, str], None],
    ) -> None:
        self._reactor = reactor
        self._time = time
        self._greeting = greeting
        self._greeted = False
        self._heard = False
        self._timeout = timeout
        self._ready = ready
        self._lost = lost
        self.reason = ""
        """Why it has ended; empty until then."""
        self._closing = False
        self._replies = ReplyReader()
        self._asked: deque[_Asked] = deque()
        self._repeats = 0
        self._answers: deque[tuple[Answered, list[int] | None]] = deque()
        self._answering = False
        self._unsent: list[bytes] = []
        self._timer: Any = None
        self._turns = turns_of(reactor)
        self._soon = getattr(reactor, "soon", None) or (lambda call: reactor.callLater(0, call))

    def connectionMade(self) -> None:
        """Send the greeting."""
        self._write(self._greeting.text)

    # -- commands

    def ask(self, text: bytes, answered: Answered) -> bool:
        """Send a command, which runs a script; False where so many wait that it is not sent."""
        if len(self._asked) >= MOST or self.reason or self._closing:
            return False
        self._send(_Asked(text, self._time() + self._timeout, answered))
        if self._timer is None:
            self._timer = self._reactor.callLater(self._timeout, self._look)
        return True

    def _send(self, asked: _Asked) -> None:
        self._asked.append(asked)
        self._unsent.append(asked.text)
        if len(self._unsent) == 1:
            self._soon(self._flush)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self.reason:
            self._write(b"".join(unsent))

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    # -- answers

    def dataReceived(self, data: bytes) -> None:
        """Replies, in pieces of any size."""
        if self.reason:
            return
        self._heard = True
        try:
            for reply in self._replies.feed(data):
                fault = self._take(reply)
                if fault:
                    self.fail(fault)
                    return
        except BadReply as error:
            self.fail(f"it sent {error}")
            return
        if not self._answering:
            self._pass_on()
        self._close_if_done()

    def _take(self, reply: Reply) -> str:
        """Note what a reply answers. Returns what is wrong with it, "" for nothing."""
        if not self._greeted:
            fault = self._greeting.fault(reply)
            self._greeted = self._greeting.complete
            if self._greeted:
                self._ready(self)
            return fault
        if not self._asked:
            return "it sent a reply that nobody asked for"
        asked = self._asked.popleft()
        if asked.repeated:
            self._repeats -= 1
        answered = asked.answered
        if isinstance(reply, ErrorReply):
            if answered is not None and reply.startswith(b"NOSCRIPT") and not asked.repeated:
                self._repeat(asked)
                return ""
            fault = f"it answers {reply}"
        elif isinstance(reply, list) and answered is not None:
            self._answers.append((answered, reply))
            return ""
        elif isinstance(reply, bytes) and answered is None:
            return ""
        else:
            fault = "it does not answer as its scripts do"
        if answered is not None:
            self._answers.append((answered, None))
        return fault

    def _repeat(self, asked: _Asked) -> None:
        """The server has lost its scripts. Those that were sent before it said so are sent again, each once."""
        if not self._repeats:
            for script in SCRIPTS:
                self._send(_Asked(script.load(), asked.until, None))
        asked.repeated = True
        self._repeats += 1
        self._send(asked)

    def _pass_on(self) -> None:
        """Pass answers on, for a part of this turn and of as many others as it takes."""
        answers, time = self._answers, self._turns.time
        until = time() + ARRIVALS
        self._answering = True
        while answers:
            answered, numbers = answers.popleft()
            try:
                answered(numbers)
            except Exception:
                # The others still get theirs.
                self.log.failure("a decision about limits could not be passed on")
            if answers and time() >= until:
                self._turns.later(self._pass_on)
                return
        self._answering = False

    # -- time

    def _look(self) -> None:
        """Whether the oldest command has waited for too long. What has arrived by now is read first: if the gateway
        itself was busy, that is no fault of the store."""
        self._timer = None
        if not self._asked:
            return
        left = self._oldest() - self._time()
        if left > 0:
            self._timer = self._reactor.callLater(left, self._look)
        else:
            self._timer = self._reactor.callLater(0, self._late)

    def _oldest(self) -> float:
        """Until when the oldest command waits; one that was sent again is not the first."""
        return min(asked.until for asked in self._asked) if self._repeats else self._asked[0].until

    def _late(self) -> None:
        self._timer = None
        if self._asked and self._oldest() <= self._time():
            self.fail(f"it has not answered within {self._timeout * 1000:g} ms")
        else:
            self._look()

    # -- the end

    def fail(self, reason: str) -> None:
        """End it at once: nothing more is sent or read."""
        self._end(reason)
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def close(self) -> None:
        """End it once everything that was sent is answered, or the timeout of that is over."""
        self._closing = True
        self._flush()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and not self._asked and not self.reason and self.transport is not None:
            self._end("closed")
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        unheard = "" if self._heard else " without an answer; a port for TLS needs rediss://"
        self._end(f"it closed the connection{unheard}")

    def _end(self, reason: str) -> None:
        if self.reason:
            return
        self.reason = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsent.clear()
        self._answers.extend((asked.answered, None) for asked in self._asked if asked.answered is not None)
        self._asked.clear()
        self._lost(self, reason)
        if not self._answering:
            self._pass_on()
