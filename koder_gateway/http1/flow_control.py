"""Flow control of one HTTP/1.1 connection: when nothing more is read of a client, and who waits for it.

The channel is the one producer of its transport. While a client does not take its responses, whoever produces one is
paused and no further request is read, so that what waits for a client is bounded by what the transport holds (on
uvloop only what the kernel does not take, else 64 KiB) and one read or answer. From then on the client has to take
what waits at `requests.min_rate`. While a service does not take a body, the client's body is not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from ..downstream.body_deadline import BodyDeadline
from ..downstream.lingering_close import LingeringClose
from ..downstream.ports import ClientSite, FlushedConnection
from ..downstream.reset_watch import ResetWatch
from ..downstream.unsent_bytes import ClientPace
from ..exchange.ports import Producer
from ..policy.limit_keys import address_key
from ..reactor.turns import Turns, read_little
from .phases import BODY, BUSY, GONE, HEAD, IDLE, READY, TUNNEL, WRITING
from .receive_buffer import ReceiveBuffer
from .stock import StockChannel

# What may wait unread behind the exchange in flight before reading pauses.
_PIPELINE_BOUND: Final = 16384
# What is read behind a response that ended its connection, so that this is not lost to a reset.
_FORGOTTEN_BOUND: Final = 1 << 20


class ClientFlow(StockChannel, BodyDeadline, LingeringClose, ResetWatch, FlushedConnection):
    """The base of the channel that pauses and resumes: `read_on` is the part of it that reads. `deadline` is
    monotonic seconds."""

    deadline: float
    write: Callable[[bytes], object]
    peer: str
    # What most connections never need is kept by the class until then: CPython gives an object of more than 30
    # attributes a dictionary of its own, which is 1.3 KiB.
    _held_for = 0.0
    # Bytes that were read and forgotten behind the last response.
    _forgotten = 0
    _pulled = False
    # How fast the client takes what waits for it; None where nothing has waited lately.
    _client_pace: ClientPace | None = None

    def __init__(self, site: ClientSite) -> None:
        self.site = site
        self._phase = IDLE
        self._unread = ReceiveBuffer()
        # Why nothing more is read: the turn is over, the service does not take the body, the client does not take its
        # responses; and whether the transport is paused for any of that.
        self._turn_over = False
        # The reactor's turns, where no layer below has asked for one already.
        self._turns: Turns | None = None
        self._held = False
        self._full = False
        self._paused = False
        # Who is paused while the client does not take its responses; `_pulled` where it is asked for each piece.
        self._producer: Producer | None = None

    def _read_on(self) -> None:
        """Read what there is, as far as it may be."""

    def _yield_turn(self) -> None:
        """Read on in a later turn, after others."""
        if not self._turn_over:
            self._turn_over = True
            self.site.turns.later(self._next_turn, address_key(self.peer))
            read_little(self.transport)

    def _wait_for_turn(self, size: int) -> None:
        """So many bytes have come when the turn was over: nothing more is read until it is this connection's."""
        if not self._turn_over:
            self._turn_over = True
            self.site.turns.arrived(size, address_key(self.peer), self._next_turn)
        self._regulate()

    def _next_turn(self) -> None:
        self._turn_over = False
        if self._phase != GONE:
            self._read_on()

    def _regulate(self) -> None:
        """Have the transport read, or not."""
        phase = self._phase
        stop = (
            self._held
            or self._turn_over
            or (self._full and phase in READY)
            or (phase == BUSY and len(self._unread) > _PIPELINE_BOUND)
            or self._forgotten > _FORGOTTEN_BOUND
        )
        if stop is not self._paused and phase != GONE:
            self._paused = stop
            transport: Any = self.transport
            if stop:
                self.site.paused.add(self)
                transport.pauseProducing()
            else:
                self.site.paused.discard(self)
                if phase == TUNNEL:
                    self.forget_reset()
                transport.resumeProducing()

    def watch_end(self) -> None:
        """The service of a tunnel has taken nothing for a while: unread, a client that is gone would keep it for
        `timeouts.tunnel`."""
        request = self.request
        if self._phase == TUNNEL and self._held and request is not None and request.sink is not None:
            self.watch_for_reset(request.sink.client_leaves)

    # -- what the transport says of the client (IPushProducer)

    def pauseProducing(self) -> None:
        """The client does not read its responses: their producer is paused, and no further request is read."""
        self._full = True
        if self._producer is not None:
            self._producer.pauseProducing()
        if self._phase in (IDLE, HEAD):
            # Its pace is checked instead of its deadline.
            self.deadline = math.inf
        self._watch_pace()
        self._regulate()

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        self._full = False
        if self._producer is not None:
            self._producer.resumeProducing()
        phase, site = self._phase, self.site
        if phase == IDLE:
            self.deadline = self.idle_until()
        elif phase == HEAD:
            self.deadline = site.clock.now + site.timeouts.head
        if self._unread.data:
            self._yield_turn()
        else:
            self._regulate()

    def idle_until(self) -> float:
        """When a connection ends that is idle from now on: while the gateway drains after a moment."""
        site = self.site
        return site.clock.now + (site.timeouts.linger if site.draining else site.timeouts.keepalive)

    def _room_to_forget(self) -> int:
        """Bytes that are still read behind the last response, of which none stays here."""
        return max(0, _FORGOTTEN_BOUND - self._forgotten)

    def stopProducing(self) -> None:
        """The transport is going away; it says so by `connectionLost` too."""
        if self._producer is not None:
            self._producer.stopProducing()

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes the response. A pull producer (not streaming) is asked for
        more."""
        self._producer = producer
        if not streaming:
            # The transport itself asks a pull producer, when it has nothing left to send.
            self._pulled = True
            self._full = False
            self._let_go_of_transport()
            # It asks for more after each write, which it sees by another `write` than before.
            self.write = self._write_pulled
            self.transport.registerProducer(producer, False)
            # At the next tick: nothing is written yet.
            self.site.watched.add(self)
        elif self._full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self._producer = None
        if self._pulled:
            self._pulled = False
            self._let_go_of_transport()
            if self._phase in WRITING:
                self.write = self.transport.write
                self.transport.registerProducer(self, True)

    def _write_pulled(self, data: bytes) -> None:
        self.transport.write(data)

    def _let_go_of_transport(self) -> None:
        """The transport asks no producer any more, and does not wait for one when it is closed."""
        if self._phase != GONE:
            self.transport.unregisterProducer()

    def write_last(self, data: bytes) -> None:
        """Send the last bytes: a transport that can sends them together with the end, which the caller makes next."""
        last = getattr(self.transport, "write_last", None)
        if last is None:
            self.write(data)
        else:
            last(data)

    def answers_soon(self) -> bool:
        """Whether the client waits for a response, and sends nothing before it. What its transport has kept then goes
        out with that, or from the next sweep."""
        if self._phase != BUSY:
            return False
        self.site.unflushed.add(self)
        return True

    def flush(self) -> None:
        """The transport sends what it has kept for a response that takes longer."""
        if self._phase != GONE:
            self.transport.flush()

    def loseConnection(self) -> None:
        """A stock request asks for the end: once all is written."""
        if not self._pulled:
            self._let_go_of_transport()
        self.transport.loseConnection()

    # -- what the service says of the body

    def _may_hold(self) -> bool:
        return self._phase in (BODY, TUNNEL)

    def _expects_body(self) -> bool:
        return self._phase == BODY

    def _body_held(self) -> None:
        self._regulate()

    def _body_released(self) -> None:
        self._read_on()

    # -- what the client has taken

    @property
    def pace_due(self) -> float:
        """When one that the site watches has to be looked at, as to how fast it takes what waits for it."""
        return -math.inf if self._client_pace is None else self._client_pace.due

    def _watch_pace(self) -> None:
        """Something waits for the client: check its pace from now on."""
        if self._client_pace is None and self._phase != GONE:
            self._begin_pace()
            self.site.watched.add(self)

    def _sending(self) -> tuple[object, int, bool]:
        exchange = None if self.request is None else self.request.exchange
        return exchange, 0 if exchange is None else exchange.bytes_out, self._full

    def check_pace(self) -> None:
        """`pace_due` has passed: end the connection of a client that takes too little."""
        pace = self._client_pace
        if self._phase == GONE:
            self.site.watched.discard(self)
        elif pace is None:
            self._watch_pace()
        elif not self._keeps_pace(pace):
            self._too_slow()
        elif not (self._full or self._pulled or pace.waiting):
            self._client_pace = None
            self.site.watched.discard(self)

    def _too_slow(self) -> None:
        """The client reads its response too slowly."""

    def taking(self) -> bool:
        """Whether something waits for the client, and it takes that as fast as it has to."""
        self._watch_pace()
        pace = self._client_pace
        return pace is not None and self._keeps_pace(pace) and (self._full or pace.waiting > 0)
