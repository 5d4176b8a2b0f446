"""One proxied exchange: its facts and its states.

An exchange begins with a request's head and ends exactly once. Every legal move stands in `MOVES`; what a
failure means depends on the phase alone, so it stands there too. Callers ask `move` what to do, and do it.

    HELD ──ANSWERED──────────────────────────────► ENDED      refused, or answered by the gateway itself
     └──FORWARDED──► WAITING ──HEAD──► RELAYING ──END──► ENDED
                     ├──WHOLE──────────────────────────► ENDED
                     │  └─failure─► retry or answer └─failure─► cut the client's message visibly
                     └──SWITCHED──► TUNNELLING ──END──► ENDED
                                        └─failure─► cut both sides
"""

from __future__ import annotations

from typing import Final

from ..errors import (
    BAD_FRAMING,
    BODY_TOO_LARGE,
    OVERLOADED,
    REQUEST_TIMEOUT,
    SERVICE_UNAVAILABLE,
    UPSTREAM_CLOSED,
    UPSTREAM_INVALID,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
    UPSTREAM_UNTRUSTED,
    Refusal,
)
from ..policy.meter import LimitResult
from ..policy.routing import Route
from ..wire.request_head import RequestHead
from .context import RequestContext
from .trace import ExchangeTrace

# Phases.
HELD, WAITING, RELAYING, TUNNELLING, ENDED = "held", "waiting", "relaying", "tunnelling", "ended"
PHASES: Final = (HELD, WAITING, RELAYING, TUNNELLING, ENDED)

# Events.
ANSWERED = "answered"  # the gateway itself responds: a refusal, a preflight, a mounted resource
FORWARDED = "forwarded"  # a service has been chosen
HEAD = "head"  # the head of the service's final response is here
WHOLE = "whole"  # the whole of that response is here
SWITCHED = "switched"  # the service has switched to the protocol that the request asked for
END = "end"  # that response is complete, or both sides of a tunnel have ended
CLIENT_GONE = "client_gone"
UNREACHABLE = "unreachable"  # no connection to the service
UNTRUSTED = "untrusted"  # the server at the service's address has not proven to be the service
UNAVAILABLE = "unavailable"  # probes say that each address of the service is unhealthy
FULL = "full"  # no place left among the connections to the service
CLOSED = "closed"  # the service closed or reset the connection
INVALID = "invalid"  # the service's response is malformed
TIMEOUT = "timeout"  # the service missed a deadline, or a tunnel was idle for too long
SLOW = "slow"  # the client's body missed its deadline
BROKEN = "broken"  # the client's body is malformed
TOO_LARGE = "too_large"  # the client's body passed the limit

# Actions.
GO = "go"  # only the move itself
ANSWER = "answer"  # send the refusal that belongs to the event
RETRY = "retry"  # once more on a fresh connection where that is safe, else ANSWER
CUT = "cut"  # end the response to the client so that it is seen to be incomplete
DROP = "drop"  # the client is gone

_FAILURES: Final = (UNREACHABLE, UNTRUSTED, UNAVAILABLE, FULL, CLOSED, INVALID, TIMEOUT, SLOW, BROKEN, TOO_LARGE)
# An address that has such a failure before it responds may be ejected.
ADDRESS_FAULTS: Final = frozenset((CLOSED, INVALID, TIMEOUT))
# Failures that are logged for the operator of the service.
SERVICE_FAULTS: Final = frozenset((UNREACHABLE, UNTRUSTED, FULL, CLOSED, INVALID, TIMEOUT))
EVENTS: Final = (ANSWERED, FORWARDED, HEAD, WHOLE, SWITCHED, END, CLIENT_GONE, *_FAILURES)

MOVES: Final[dict[tuple[str, str], tuple[str, str]]] = {
    (HELD, ANSWERED): (ENDED, GO),
    (HELD, FORWARDED): (WAITING, GO),
    (HELD, CLIENT_GONE): (ENDED, DROP),
    (HELD, SLOW): (ENDED, ANSWER),
    (HELD, BROKEN): (ENDED, ANSWER),
    (HELD, TOO_LARGE): (ENDED, ANSWER),
    (WAITING, HEAD): (RELAYING, GO),
    (WAITING, WHOLE): (ENDED, GO),
    (WAITING, SWITCHED): (TUNNELLING, GO),
    (WAITING, CLIENT_GONE): (ENDED, DROP),
    # RETRY leaves the phase as it is; where it is refused the edge answers and the exchange ends.
    (WAITING, UNREACHABLE): (WAITING, RETRY),
    (WAITING, UNTRUSTED): (WAITING, RETRY),
    (WAITING, CLOSED): (WAITING, RETRY),
    (WAITING, FULL): (ENDED, ANSWER),
    (WAITING, INVALID): (ENDED, ANSWER),
    (WAITING, TIMEOUT): (WAITING, RETRY),
    (WAITING, UNAVAILABLE): (ENDED, ANSWER),
    (WAITING, SLOW): (ENDED, ANSWER),
    (WAITING, BROKEN): (ENDED, ANSWER),
    (WAITING, TOO_LARGE): (ENDED, ANSWER),
    (RELAYING, END): (ENDED, GO),
    (RELAYING, CLIENT_GONE): (ENDED, DROP),
    (RELAYING, CLOSED): (ENDED, CUT),
    (RELAYING, INVALID): (ENDED, CUT),
    (RELAYING, TIMEOUT): (ENDED, CUT),
    (RELAYING, SLOW): (ENDED, CUT),
    (RELAYING, BROKEN): (ENDED, CUT),
    (RELAYING, TOO_LARGE): (ENDED, CUT),
    (TUNNELLING, END): (ENDED, GO),
    (TUNNELLING, CLIENT_GONE): (ENDED, DROP),
    (TUNNELLING, CLOSED): (ENDED, CUT),
    (TUNNELLING, TIMEOUT): (ENDED, CUT),
}
# Events that end an exchange without a complete response: values of `Exchange.code` besides refusals' codes.
EARLY_ENDS: Final = frozenset(event for (_, event), (_, action) in MOVES.items() if action in (CUT, DROP))

# The response to the client for each failure, as long as none has begun.
ANSWERS: Final[dict[str, Refusal]] = {
    UNREACHABLE: UPSTREAM_UNREACHABLE,
    UNTRUSTED: UPSTREAM_UNTRUSTED,
    UNAVAILABLE: SERVICE_UNAVAILABLE,
    FULL: OVERLOADED,
    CLOSED: UPSTREAM_CLOSED,
    INVALID: UPSTREAM_INVALID,
    TIMEOUT: UPSTREAM_TIMEOUT,
    SLOW: REQUEST_TIMEOUT,
    BROKEN: BAD_FRAMING,
    TOO_LARGE: BODY_TOO_LARGE,
}

# RFC 9110 section 9.2.2.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class IllegalMove(Exception):
    """The table does not have this move: an error in the gateway, never a peer's."""


class Exchange:
    """The facts of one exchange, from the request's head to the line in the access log.

    `started` is monotonic seconds. `chosen` is the route of its path, once admission has chosen one. `context` is
    what it has in common with the other requests of its client, and `peer` that client's address as limits, logs and
    services see it. `refusal` is that with which it begins, None where the request may be admitted. `fields` are the
    finished field lines that every response carries (request id, CORS, HSTS, limits): with `limited` such of the
    service's give way to them, with `drops_hsts` its HSTS to ours or to none. `readable`: a page of another origin
    may read the response, and what the service exposes of it. `excused`: its 4xx is no failure, nor its end without a
    response. `trace_id` is that of the trace that the service gets, b"" where none was asked, and `trace` what is
    recorded of it, None if nothing is. `sent_at` and `answered_at` are when the request, or its last try, was sent to
    a service (0: at once), and when the head of the final response came (0: never, inf: with all of it): monotonic
    seconds. `code` is what the access log says beside the status: a refusal's code, or how an exchange ended without
    a whole response.
    """

    __slots__ = (
        "answered_at",
        "bytes_in",
        "bytes_out",
        "charges",
        "chosen",
        "code",
        "context",
        "drops_hsts",
        "excused",
        "fields",
        "head",
        "limited",
        "peer",
        "phase",
        "readable",
        "refusal",
        "request_id",
        "retries",
        "route",
        "sent_at",
        "service",
        "started",
        "status",
        "tenant",
        "trace",
        "trace_id",
    )

    def __init__(self, head: RequestHead, context: RequestContext, started: float, request_id: bytes) -> None:
        self.head = head
        self.context = context
        self.peer = context.address
        self.started = started
        self.request_id = request_id
        self.phase = HELD
        self.refusal: Refusal | None = None
        self.fields = b"X-Request-ID: %b\r\n%b" % (request_id, context.fields)
        self.tenant = b""
        self.route = b""
        self.chosen: Route | None = None
        self.service = ""
        self.status = 0
        self.code = ""
        self.retries = 0
        self.limited = False
        self.drops_hsts = context.drops_hsts
        self.readable = context.readable
        self.excused = False
        self.charges: LimitResult | None = None
        self.trace_id = b""
        self.trace: ExchangeTrace | None = None
        self.sent_at = self.answered_at = 0.0
        self.bytes_in = 0
        self.bytes_out = 0

    def move(self, event: str) -> str:
        """Take the move for `event` and give the action that belongs to it. Raises IllegalMove."""
        try:
            self.phase, action = MOVES[self.phase, event]
        except KeyError:
            raise IllegalMove(f"{event} in phase {self.phase}") from None
        if action is CUT or action is DROP:
            self.code = event
        return action

    def end(self, code: str = "") -> None:
        """End it from any phase, without a move: the gateway itself responds, or gives up for a reason that is
        neither the service's fault nor the body's. `code` says how it ended without a complete response."""
        self.phase = ENDED
        if code:
            self.code = code

    def broken_off(self, body_done: bool) -> None:
        """The client has ended it. Where not all of its body has come, no service can have judged it."""
        if not (body_done or self.status):
            self.excused = True

    def may_retry(self, *, sent: bool, replayable: bool) -> bool:
        """Whether to try once more on a fresh connection (RFC 9110 section 9.2.2).

        `sent`: some of the request may have reached the service. `replayable`: all that was sent is still here.
        """
        if self.retries:
            return False
        return replayable and (not sent or self.head.method in IDEMPOTENT)
