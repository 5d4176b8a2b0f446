"""One exchange on its way between a client and a service: the edge that does what `exchange.states` decides.

A relay is made when a service has been chosen and is done when the exchange has ended. It owns neither side:
the client and the connection (pool) outlive it.
"""

from __future__ import annotations

import math
from typing import Final

from ..exchange.forwarding import bodiless
from ..exchange.ports import BodySink, Client
from ..exchange.service_head import head_for_service
from ..exchange.states import (
    ADDRESS_FAULTS,
    ANSWER,
    ANSWERS,
    CLOSED,
    CUT,
    END,
    FORWARDED,
    FULL,
    HEAD,
    HELD,
    RETRY,
    SERVICE_FAULTS,
    SWITCHED,
    TIMEOUT,
    UNAVAILABLE,
    UNREACHABLE,
    UNTRUSTED,
    WHOLE,
)
from ..exchange.tracing import begin_attempt, end_attempt
from ..policy.grants import LONGEST, Excuse, excuse_for
from ..reactor.read_sizes import room_of
from ..wire.body import chunk, last_chunk
from ..wire.request_head import KEPT_HEAD
from ..wire.response import ResponseHead
from .attempt import Attempt, ConnectionSeeker
from .capacity import owner_of
from .connection import UpstreamConnection
from .pool import Service
from .ports import PlaceSeeker, ResponseReceiver
from .tunnel import Tunnel

# What of a request is kept for one more try on a fresh connection.
_REPLAY_BOUND: Final = 65536


class Relay(PlaceSeeker, ResponseReceiver, ConnectionSeeker, BodySink):
    """Forwards one request and relays its response. `deadline` is monotonic seconds; the address sweeps it."""

    __slots__ = (
        "_answered",
        "_body_bytes",
        "_excuse",
        "_held",
        "_kept",
        "attempt",
        "client",
        "connection",
        "deadline",
        "exchange",
        "request_done",
        "service",
    )
    streams = True

    def __init__(self, client: Client, service: Service) -> None:
        exchange, body, done = client.exchange, client.body, client.body_done
        self.client = client
        self.exchange = exchange
        self.service = service
        self.connection: UpstreamConnection | None = None
        self.attempt: Attempt | None = None
        self.request_done = done
        self.deadline = math.inf
        self._answered = self._held = False
        # Under limits that charge failures: what may still show that a 4xx is no failed guess.
        self._excuse: Excuse | None = None
        head = exchange.head
        # The bytes of the request so far; None once they are too many to be sent again.
        self._kept: list[bytes] | None = [head_for_service(exchange)]
        if not head.raw and len(self._kept[0]) > KEPT_HEAD:
            # They are in what is kept. A head without `raw` is no other request's, and so large it counts.
            head.drop_fields()
        self._body_bytes = 0
        if body:
            self._keep(self._framed(body))
        if done and head.chunked:
            self._end_chunks(client.trailers)

    # -- towards the service

    def start(self) -> None:
        """Choose a connection, or wait for one, and send what there is. An announced body needs its first byte here
        before the exchange takes a place at the service. Until then it is held under the client's body timeout, and
        this is called again."""
        exchange, service = self.exchange, self.service
        if not self.request_done and not self._body_bytes:
            # No service can be asked yet whether it wants the body.
            self.client.ask_for_body()
            return
        exchange.service = service.name
        exchange.move(FORWARDED)
        if exchange.head.upgrade is not None:
            refusal = service.capacity.tunnel_refusal(self)
            if refusal:
                self.failed(FULL, refusal)
                return
        if service.places.acquire(self):
            self._attempt(fresh=False)
        elif service.capacity.wait(self):
            self._hold_body()

    def waits(self, deadline: float) -> None:
        """There is no place at the service yet."""
        self.deadline = deadline

    def granted(self) -> None:
        """A place is free for the exchange that has waited for one."""
        self.deadline = math.inf
        self.exchange.sent_at = self.service.clock.precise()
        self._attempt(fresh=False)

    def _attempt(self, *, fresh: bool) -> None:
        service = self.service
        address = service.sole or service.next_address(owner_of(self).address)
        if address is None:
            self.failed(UNAVAILABLE)
            return
        if self.exchange.trace is not None:
            begin_attempt(self.exchange, self._kept, address.url, service.clock.precise())
        connection = None if fresh else address.checkout(self.exchange.tenant)
        if connection is not None:
            self.connected(connection)
        else:
            self._hold_body()
            attempt = service.connect(address, self)
            if not attempt.done:
                self.attempt = attempt

    def _hold_body(self) -> None:
        """There is no connection yet that could take the rest of the body."""
        if not self.request_done and not self._held:
            self._held = True
            self.client.pause_body()

    def body_room(self) -> int:
        """Bytes of the request that go on their way to the service at once."""
        return 0 if self.connection is None else room_of(self.connection.transport)

    def connected(self, connection: UpstreamConnection) -> None:
        """A connection serves this exchange alone from now on: send what there is of the request."""
        if self.attempt is not None:
            self.attempt = None
            self.exchange.sent_at = self.service.clock.precise()
        self.connection = connection
        service = self.service
        now = connection.begun = service.clock.now
        self.deadline = now + (service.response_timeout if self.request_done else service.idle_timeout)
        kept = self._kept
        assert kept is not None, "an attempt is only made with the whole request so far at hand"
        connection.tenant = self.exchange.tenant
        signed = self.exchange.context.signed
        if signed is not None:
            # Not before now: who waits for a place or for the client's body must not send a context that is old.
            kept = [kept[0][:-2], signed.line(), b"\r\n", *kept[1:]]
        connection.begin(self, kept[0] if len(kept) == 1 else b"".join(kept))
        if not self.request_done and self.connection is connection:
            connection.pull_from_client()
            if self._held:
                self._held = False
                self.client.resume_body()
        if self.client.paused_early and self.connection is connection:
            self.client.stream_from(connection)

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self.exchange.head.chunked else data

    def _keep(self, data: bytes) -> None:
        if self._kept is not None:
            self._body_bytes += len(data)
            if self._body_bytes > _REPLAY_BOUND and self.connection is not None:
                self._kept = None
            else:
                self._kept.append(data)

    def _end_chunks(self, trailers: list[bytes]) -> None:
        """A chunked body is complete. An empty one is sent as no body."""
        if not self._body_bytes and not trailers:
            kept = self._kept
            assert kept is not None, "nothing has been sent before the first byte of a body"
            self._kept = [bodiless(kept[0], self.exchange.head.method)]
            return
        data = last_chunk(trailers)
        self._keep(data)
        if self.connection is not None:
            self.connection.send(data)

    def body_received(self, data: bytes) -> None:
        """More of the request's body (not empty)."""
        data = self._framed(data)
        self._keep(data)
        if self.connection is not None:
            if not self._answered:
                self.deadline = self.service.clock.now + self.service.idle_timeout
            self.connection.send(data)
        elif self.exchange.phase is HELD:
            self.exchange.sent_at = self.service.clock.precise()
            self.start()

    def body_ended(self, trailers: list[bytes]) -> None:
        """The request is complete."""
        self.request_done = True
        if self.exchange.head.chunked:
            self._end_chunks(trailers)
        if self.connection is not None:
            if not self._answered:
                self.deadline = self.service.clock.now + self.service.response_timeout
            self.connection.request_ended()
        elif self.exchange.phase is HELD:
            self.exchange.sent_at = self.service.clock.precise()
            self.start()

    # -- towards the client

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response has come. A 100 is dropped: the service was not asked for one."""
        if head.status != 100:
            self.client.interim(head)

    def answered(self, head: ResponseHead, body: bytes, done: bool, keep_alive: bool) -> None:
        """The head of the final response has come, with the beginning of its body; see `ResponseReceiver`."""
        exchange = self.exchange
        exchange.move(WHOLE if done else HEAD)
        self._answered = True
        # A whole response ends the exchange at once.
        exchange.answered_at = math.inf if done else self.service.clock.precise()
        asked, self._kept = self._kept, None
        exchange.status = head.status
        assert self.connection is not None, "a response comes on a connection"
        if head.status in self.service.ejection.statuses:
            self._blame(self.connection)
        else:
            self.connection.address.answered += 1
        if 400 <= head.status < 500:
            self._look_for_excuse(asked, head, body)
        if done:
            if self._excuse is not None:
                exchange.excused = self._excuse.holds
            self._release(keep_alive)
            self.client.respond(head, body, True)
        else:
            self.deadline = self.service.clock.now + self.service.idle_timeout
            self.client.respond(head, body, False)
            if self.connection is not None:
                self.client.stream_from(self.connection)

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """The service has switched protocols as it was asked to; `data` came behind its 101."""
        service, connection = self.service, self.connection
        assert connection is not None, "only a connection's answer switches protocols"
        # There was a place when the service was asked.
        refusal = service.capacity.tunnel_refusal(self)
        if refusal:
            self.failed(FULL, refusal)
            return
        self.exchange.move(SWITCHED)
        self.exchange.answered_at = service.clock.precise()
        self.exchange.status = head.status
        self.deadline = math.inf
        connection.address.answered += 1
        self._kept = self.connection = None
        service.places.release(self)
        Tunnel(self.client, connection, service.tunnels, owner_of(self)).start(head, data)

    def body(self, data: bytes) -> None:
        """More of the response's body."""
        self.deadline = self.service.clock.now + self.service.idle_timeout
        if self._excuse is not None:
            self._excuse.add(data)
        self.client.send_body(data)

    def ended(self, trailers: list[bytes], keep_alive: bool) -> None:
        """The response is complete."""
        self.exchange.move(END)
        if self._excuse is not None:
            self.exchange.excused = self._excuse.holds
        self._release(keep_alive)
        self.client.end_body(trailers)

    def _look_for_excuse(self, asked: list[bytes] | None, head: ResponseHead, body: bytes) -> None:
        """A 4xx has begun: its body may show that the request was no guess. `asked` is all that was sent, None if
        that is not known any more."""
        verdict = self.exchange.charges
        if verdict is None or not verdict.may_fail(head.status):
            return
        # Only a complete request can be judged.
        known = head.status == 400 and self.request_done and self._body_bytes <= LONGEST
        self._excuse = excuse_for(asked if known and asked else (), self.exchange.head.chunked, head.lines)
        if self._excuse is not None:
            self._excuse.add(body)

    # -- failures

    def failed(self, event: str, detail: str = "") -> None:
        """The exchange cannot go on: do what the table says for this phase."""
        action = self.exchange.move(event)
        if self.connection is not None and event in ADDRESS_FAULTS and not (self._answered or self._stale(event)):
            self._blame(self.connection)
        if action is RETRY and self._retry(event):
            if event == UNTRUSTED:
                # Another address serves the exchange, but the operator must hear of this one.
                self.service.failed(event, detail)
            return
        self._release(False)
        if action is ANSWER or action is RETRY:
            self.client.refuse(ANSWERS[event] if event != UNAVAILABLE else self.service.unavailable)
        elif action is CUT:
            self.client.cut()
        if event in SERVICE_FAULTS:
            self.service.failed(event, detail)

    def may_repeat(self) -> bool:
        """Whether the request can be sent once more, and does no harm where the service has had it already."""
        return self.exchange.may_retry(sent=True, replayable=self._kept is not None)

    def _stale(self, event: str) -> bool:
        """Whether a kept-alive connection has died before a byte of the response: that is nobody's fault."""
        return event == CLOSED and self.connection is not None and self.connection.unheard

    def _blame(self, connection: UpstreamConnection) -> None:
        """The address has failed. Where the request is not complete, the client may be the cause."""
        if self.request_done:
            connection.address.failed(owner_of(self).address, connection.begun)

    def _retry(self, event: str) -> bool:
        service, sent = self.service, self.connection is not None
        # Without a connection, even if only in time, it may be another address that has one.
        elsewhere = event in (UNREACHABLE, UNTRUSTED, TIMEOUT) and service.has_other_address
        reason = self._stale(event) if sent else elsewhere
        safe = self.exchange.may_retry(sent=sent, replayable=self._kept is not None)
        if not (reason and safe and service.may_retry()):
            return False
        self._release(False, retrying=True)
        end_attempt(self.exchange, event, self.service.clock.precise())
        self.exchange.retries += 1
        service.retried += 1
        self._attempt(fresh=True)
        return True

    def progressed(self) -> None:
        """One side has taken what the other sent: the exchange is alive."""
        service = self.service
        answering = self._answered or not self.request_done
        self.deadline = service.clock.now + (service.idle_timeout if answering else service.response_timeout)

    def expired(self) -> None:
        """The deadline has passed."""
        if self.connection is not None and self.connection.paused:
            self._expired_by_client()
        else:
            self.failed(TIMEOUT)

    def _expired_by_client(self) -> None:
        """The connection is paused because the client takes little or nothing: what the kernel still holds for it
        shows whether it takes enough."""
        if self.client.taking():
            self.progressed()
            return
        self.exchange.move(TIMEOUT)
        self._release(False)
        self.client.cut(at_once=True)

    def abandon(self) -> None:
        """Release the service; the caller ends the exchange."""
        self._release(False)

    def client_leaves(self) -> None:
        """See `BodySink`: an exchange has deadlines of its own."""

    def client_failed(self, event: str) -> None:
        """The client is gone, or its body is late, broken or too large."""
        self.failed(event)

    def _release(self, keep_alive: bool, *, retrying: bool = False) -> None:
        """Let go of the connection, which is used again only if both messages on it are complete; and, except for a
        retry, of the place at the service or in its queue."""
        self.deadline = math.inf
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.end(keep_alive and self.request_done, self.request_done)
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.cancel()
        if not retrying:
            self.service.places.release(self)
