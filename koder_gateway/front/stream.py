"""One HTTP/2 stream: the channel of one request, with its windows, and what waits for them (RFC 9113 section 5).

What the service sends goes out as far as the client's windows and the transport let it; the rest waits here, and
while more than a little waits the service is paused. What the client sends is paid back to its windows as the
service takes it, so that a service that takes nothing stops the client.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from ..errors import BODY_TOO_LARGE
from ..policy.certificates import Secured
from ..wire.exchange import BROKEN, TOO_LARGE
from ..wire.frames import (
    CANCEL,
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADER,
    INTERNAL_ERROR,
    MAX_WINDOW,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    StreamError,
    frame,
    header_frames,
    reset_frame,
    window_frame,
)
from ..wire.hpack import encode_field, encode_lines, encode_status
from ..wire.patience import DATA_SENT, WORTH_WHILE
from .stock import StockChannel

if TYPE_CHECKING:
    from .http2 import Http2Channel
    from .http2_request import Http2Request

# What a stream may send before it is paid back, in bytes.
STREAM_WINDOW: Final = 131072
# The service is paused while more than this waits for the client's windows.
_HIGH: Final = 65536
# The rest of a body that an answer did not wait for is read to its end when it is no more than this.
_FORGOTTEN_BOUND: Final = 65536
_EMPTY: Final = b""
_NOT_FOR_STREAMS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"date", b"x-request-id")
)


class Stream(StockChannel):
    """The channel of one request. `deadline` is monotonic seconds; the connection's sweep looks at it.

    `remote_done`: the client has ended its side; `local_done`: our end is queued. The stream is over when both
    sides are done and all is sent, or when either side has reset it.
    """

    keep_alive: bool = True
    lingers = False

    def __init__(self, connection: Http2Channel, number: int, ended: bool, length: int | None) -> None:
        self.connection = connection
        self.site = connection.site
        self.transport = connection.transport
        self.number = number
        self.request: Http2Request | None = None
        self.remote_done = ended
        self.local_done = False
        self.closed = False
        self._all_sent = False
        self._cut = False
        self._forgotten = 0
        self.deadline = math.inf
        self.send_window = connection.out.initial_window
        self._least = min(connection.out.max_frame, connection.out.initial_window) // 2
        self.waiting: deque[bytes | memoryview] = deque()
        self.listed = False
        self._waiting_size = 0
        self._producer: Any = None
        self._pulled = False
        self._producer_paused = False
        self._asked = False
        self._last_block = _EMPTY
        # Whether an extended CONNECT has opened it, and its tunnel stands.
        self.upgrading = False
        self._tunnelling = False
        self._early: list[bytes] = []
        self._length = length
        self._received = 0
        self._receive_window = STREAM_WINDOW
        # Taken by the service; and of that, paid back and not yet said.
        self._owed = 0
        self._unsaid = 0
        self._held = False
        self._held_for = 0.0
        self._sent = self._sent_before = 0

    # -- towards the client

    def send_head(self, block: bytes, ended: bool) -> None:
        """Send a field block; `ended` when nothing follows it."""
        if self.closed:
            return
        out = self.connection.out
        out.send(header_frames(self.number, out.prefixed(block), END_STREAM if ended else 0, out.max_frame))
        if ended:
            self._end()

    def send_whole(self, block: bytes, body: bytes) -> None:
        """Send a field block and a whole body, in one piece where the windows and frames allow it."""
        out = self.connection.out
        size = len(body)
        if size > out.max_frame or size > self.send_window or size > out.window:
            self.send_head(block, False)
            self.send_body(body, True)
            return
        out.window -= size
        self._sent += size
        out.send(
            b"%b%b%b"
            % (
                header_frames(self.number, out.prefixed(block), 0, out.max_frame),
                HEADER.pack(size >> 8, size & 0xFF, DATA, END_STREAM, self.number),
                body,
            )
        )
        self._end()

    def send_body(self, data: bytes, ended: bool) -> None:
        """Send more of the body, or let it wait; `ended` when that was all."""
        if self.closed:
            return
        if data:
            self.waiting.append(data)
            self._waiting_size += len(data)
        if ended:
            self._end()
        self._go_on()

    def send_trailers(self, lines: list[bytes]) -> None:
        """End the body with these finished field lines."""
        self._last_block = encode_lines(b"".join(lines))
        self._end()
        self._go_on()

    def _go_on(self) -> None:
        """Let what waits go as far as it can now."""
        if not self.listed:
            self.connection.out.enlist(self)
        self.connection.out.pump()
        if self._waiting_size > _HIGH and not self._producer_paused and self._producer is not None:
            self._producer_paused = True
            if not self._pulled:
                self._producer.pauseProducing()

    def emit(self, forced: bool = False) -> bool:
        """Send one frame of what waits; whether there is more that could go at once.

        A window that opens by crumbs is not filled by crumbs, or it would stay cut into them (RFC 9293 section
        3.8.6.2.1, for TCP): then more is waited for, unless it is `forced`.
        """
        out, waiting = self.connection.out, self.waiting
        if waiting:
            room = min(out.window, self.send_window, out.max_frame)
            if room <= 0:
                return False
            if room < self._least and len(waiting[0]) > room and not forced:
                out.hold(self)
                return False
            data = waiting.popleft()
            size = len(data)
            if size > room:
                view = memoryview(data)
                waiting.appendleft(view[room:])
                data, size = view[:room], room
            elif waiting and size + len(waiting[0]) <= room:
                data = self._gathered(data, room)
                size = len(data)
            self._waiting_size -= size
            self._sent += size
            self.send_window -= size
            out.window -= size
            last = self.local_done and not waiting and not self._last_block
            out.send(HEADER.pack(size >> 8, size & 0xFF, DATA, END_STREAM if last else 0, self.number))
            out.send(data)
            if size >= WORTH_WHILE:
                self.connection.patience.earn(DATA_SENT)
            if waiting:
                return True
            if self._cut:
                self._over(INTERNAL_ERROR)
                return False
            if not self.local_done:
                self._refill()
                return False
            if last:
                self._finish()
                return False
        if self.local_done:
            if self._last_block:
                block = out.prefixed(self._last_block)
                out.send(header_frames(self.number, block, END_STREAM, out.max_frame))
            else:
                out.send(frame(DATA, END_STREAM, self.number, _EMPTY))
            self._finish()
        return False

    def _gathered(self, data: bytes | memoryview, room: int) -> bytes:
        """Several small pieces that wait, as one."""
        pieces = [data]
        size = len(data)
        while self.waiting and size + len(self.waiting[0]) <= room:
            pieces.append(self.waiting.popleft())
            size += len(pieces[-1])
        return b"".join(pieces)

    def _refill(self) -> None:
        """Nothing waits any more: the service may go on."""
        if self._producer_paused and self._producer is not None:
            self._producer_paused = False
            if self._pulled:
                self._ask()
            else:
                self._producer.resumeProducing()

    def _end(self) -> None:
        """Our side ends with what was given; only what waits is still to be sent."""
        self.local_done = True
        if not self.waiting and not self.listed and not self._last_block and self.request is None:
            self._finish()

    def _finish(self) -> None:
        """Everything is sent. What the client still has to say, nobody waits for (RFC 9113 section 8.1)."""
        self._last_block = _EMPTY
        self.local_done = self._all_sent = True
        if self.request is not None:
            return
        if self.remote_done:
            self._over(None)
            return
        # What little is still on its way is read and forgotten: a reset could reach the client before the answer.
        site = self.site
        self.deadline = site.clock.now + site.timeouts.linger
        self.connection.wake(self.deadline)

    def grant(self, size: int) -> None:
        """The client takes this much more, or less where it has changed its settings."""
        self.send_window += size
        if self.send_window > MAX_WINDOW:
            raise StreamError(FLOW_CONTROL_ERROR, "a stream's window is over 2^31-1 bytes")
        if self.waiting and not self.listed and self.send_window > 0:
            self.connection.out.enlist(self)

    # -- from the client

    def receive(self, data: bytes, ended: bool, size: int) -> None:
        """A DATA frame: `size` counts its padding too. Raises StreamError."""
        if self.remote_done:
            raise StreamError(STREAM_CLOSED, "DATA on a stream that its client has ended")
        self._receive_window -= size
        if self._receive_window < 0:
            raise StreamError(FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
        self._received += len(data)
        if self._length is not None and (self._received > self._length or (ended and self._received < self._length)):
            raise StreamError(PROTOCOL_ERROR, "the body has another length than its content-length")
        if ended:
            self._client_ended()
        self._owed += size
        request = self.request
        if request is None:
            self._forget(size)
            return
        if self.upgrading:
            self._receive_raw(request, data)
            return
        if self._received > self.site.policy.max_body:
            self._fail(request, TOO_LARGE)
            return
        if not ended and not self._held and data:
            self._renew_deadline(len(data))
        request.exchange.bytes_in += len(data)
        sink = request.sink
        if ended:
            request.body_done = True
        if sink is not None:
            if data:
                sink.body_received(data)
            if ended and request.sink is sink:
                sink.body_ended([])
        self._pay()

    def _receive_raw(self, request: Http2Request, data: bytes) -> None:
        """Bytes of a tunnel; what comes before it stands waits for it, within the stream's window."""
        if not self._tunnelling:
            if data:
                self._early.append(data)
            return
        if data and request.sink is not None:
            request.sink.body_received(data)
        if self.remote_done and self.request is request:
            request.half_closed()
        self._pay()

    def tunnel(self) -> None:
        """The service has switched protocols: whatever comes, and what has waited, is its."""
        self._tunnelling = True
        early, self._early = self._early, []
        if self.request is not None:
            self._receive_raw(self.request, b"".join(early))

    def end_sending(self) -> bool:
        """Tell the client that no more will come."""
        self._end()
        self._go_on()
        return True

    def _forget(self, size: int) -> None:
        """Bytes of a body that nobody waits for."""
        self._pay()
        self._forgotten += size
        if self.remote_done and self._all_sent:
            self._over(None)
        elif self._forgotten > _FORGOTTEN_BOUND and self._all_sent:
            self._over(NO_ERROR)

    def receive_trailers(self, lines: list[bytes]) -> None:
        """The client's body ends with trailers. Raises StreamError."""
        if self.upgrading:
            raise StreamError(PROTOCOL_ERROR, "trailers on a tunnel")
        if self._length is not None and self._received != self._length:
            raise StreamError(PROTOCOL_ERROR, "the body has another length than its content-length")
        self._client_ended()
        request = self.request
        if request is None:
            self._forget(0)
            return
        request.body_done = True
        if request.sink is not None:
            request.sink.body_ended(lines)

    def _client_ended(self) -> None:
        self.remote_done = True
        if self.request is not None:
            # What the answer takes from here on is the relay's to watch; without one it is the client's own time.
            self.deadline = math.inf

    def _renew_deadline(self, size: int) -> None:
        """The time that a body has grows with what has come, but never beyond its grace from now."""
        site = self.site
        self.deadline = min(self.deadline + size * site.seconds_per_byte, site.clock.now + site.timeouts.body)
        self.connection.wake(self.deadline)

    def _fail(self, request: Http2Request, event: str) -> None:
        if request.sink is not None:
            request.sink.client_failed(event)
        else:
            request.refuse(BODY_TOO_LARGE)

    def _pay(self) -> None:
        """Pay back what the service has taken, half a window at a time."""
        owed = self._owed
        if self._held or not owed:
            return
        self._owed = 0
        self.connection.pay(owed)
        if not self.remote_done and not self.closed:
            self._receive_window += owed
            # What is paid back in crumbs costs a frame each; the client sees its window in halves.
            self._unsaid += owed
            if self._unsaid >= STREAM_WINDOW // 2:
                self.connection.out.send(window_frame(self.number, self._unsaid))
                self._unsaid = 0

    def hold_body(self) -> None:
        """The service does not take the body: neither does the gateway, and the client's time stands still."""
        if not self._held and not self.remote_done:
            self._held = True
            self._held_for = self.deadline - self.site.clock.now
            self.deadline = math.inf

    def release_body(self) -> None:
        """The service takes the body again."""
        if self._held:
            self._held = False
            if not self.remote_done:
                self.deadline = self.site.clock.now + self._held_for
                self.connection.wake(self.deadline)
            self._pay()

    # -- the end

    def settle_rest(self) -> None:
        """An answer is about to be sent before its request's body has come: the stream ends with it."""

    def exchange_over(self, finished: bool) -> None:
        """The request's answer is complete, or never will be."""
        self.request = None
        if self._held:
            self._held = False
            self._pay()
        if self.closed or not finished:
            return
        if not self.local_done:
            self.local_done = True
            self._go_on()
        elif not self.waiting and not self.listed and not self._last_block:
            self._finish()
        if not self.closed and not self._all_sent:
            site = self.site
            self.deadline = site.clock.now + site.timeouts.idle
            self.connection.wake(self.deadline)

    def cut(self, plain: bool) -> None:
        """Reset in the midst of an answer; with `plain` it was the service that failed, else the client. What the
        service sent before it failed still goes out."""
        if not plain or not self.waiting or self.closed:
            self._over(INTERNAL_ERROR if plain else CANCEL)
            return
        self._cut = True
        site = self.site
        self.deadline = site.clock.now + site.timeouts.idle
        self.connection.wake(self.deadline)

    def fail(self, code: int, event: str = BROKEN) -> None:
        """The client broke the stream's rules: end it, and whatever is under way on it."""
        request = self.request
        if request is not None:
            request.broken(event)
        self._over(code)

    def reset(self) -> None:
        """The client has reset the stream, or its connection is gone."""
        self.closed = True
        request = self.request
        if request is not None:
            request.lost(Failure(ConnectionAborted()))
        self._over(None)

    def _over(self, code: int | None) -> None:
        """The stream is closed; with a code the client is told."""
        connection = self.connection
        served = not self.closed and (code is None or code == NO_ERROR)
        if code is not None and not self.closed:
            connection.was_reset(self.number)
            connection.out.send(reset_frame(self.number, code))
        self.closed = True
        self.local_done = True
        self.waiting.clear()
        self._waiting_size = 0
        self.deadline = math.inf
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self._owed:
            owed, self._owed = self._owed, 0
            connection.pay(owed)
        connection.stream_over(self, served)

    def expire(self) -> None:
        """The stream's deadline has passed: of its body, or of a client that does not take its answer."""
        request = self.request
        if request is not None:
            if self.remote_done:
                self.deadline = math.inf
            else:
                request.late()
        elif self._all_sent:
            self._over(NO_ERROR)
        elif self.taking():
            self.deadline = self.site.clock.now + self.site.timeouts.idle
            self.connection.wake(self.deadline)
        else:
            self._over(CANCEL)

    def taking(self) -> bool:
        """Whether the client has taken anything on this stream since this was last asked."""
        before, self._sent_before = self._sent_before, self._sent
        return before != self._sent or (not self.waiting and self.connection.taking())

    # -- what stock requests ask of their channel, and who produces the answer

    def write(self, data: bytes) -> None:
        """Send more of a stock answer's body."""
        if data:
            self.send_body(data, False)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send a stock answer's head with the fields that every answer of the gateway carries."""
        request = self.request
        if request is None:
            return
        parts = [encode_status(int(code))]
        for name, values in headers.getAllRawHeaders():
            lower = name.lower()
            if lower == b"strict-transport-security" and request.standing.own_hsts:
                continue
            if lower not in _NOT_FOR_STREAMS and not lower.startswith(b"access-control-"):
                parts += [encode_field(lower, value.replace(b"\r\n", b" ")) for value in values]
        parts.append(encode_lines(self.site.date_line + request.exchange.fields))
        self.send_head(b"".join(parts), False)

    def writeSequence(self, pieces: Any) -> None:
        """Send several pieces as one."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes the answer; one that is not streaming is asked for more."""
        self._producer = producer
        self._pulled = not streaming
        self._producer_paused = False
        if self._pulled:
            self._ask()
        elif self._waiting_size > _HIGH:
            self._producer_paused = True
            producer.pauseProducing()

    def _ask(self) -> None:
        """Have a producer that is pulled asked for more in the next turn: once, whoever it is by then."""
        if not self._asked:
            self._asked = True
            self.site.soon(self._pull)

    def _pull(self) -> None:
        self._asked = False
        if self._producer is not None and self._pulled and not self._producer_paused:
            self._producer.resumeProducing()
            if self._producer is not None and not self._producer_paused:
                self._ask()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self._producer = None

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        return self.connection.getPeer()

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        return self.connection.getHost()

    def isSecure(self) -> bool:
        """HTTP/2 is only spoken over TLS here."""
        return True

    def secured(self) -> Secured | None:
        """What TLS has established with the client."""
        return self.connection.secured

    def loseConnection(self) -> None:
        """A stock request asks for the end of its connection, which on a stream is the end of the stream."""
        request = self.request
        if request is not None:
            request.lost(Failure(ConnectionAborted()))
        if not self.closed:
            self._over(CANCEL)
