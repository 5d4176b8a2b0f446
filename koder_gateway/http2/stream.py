"""One HTTP/2 stream: the channel of one request, from its head to its end (RFC 9113 section 5).

Each direction ends by itself. `ReceiveWindow` counts the body that the client sends, which goes to the request's
sink; `SendWindow` sends the response.
"""

from __future__ import annotations

import math
from typing import Final

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from ..downstream.body_deadline import BodyDeadline
from ..exchange.states import BROKEN, SLOW, TIMEOUT, TOO_LARGE
from ..wire.http2_frames import (
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    StreamError,
    reset_frame,
)
from .answer_producer import SendingStream
from .ports import Connection
from .receive_window import ReceiveWindow
from .request import Http2Request, RequestStream
from .send_window import SendWindow
from .stock import StockStream

# The rest of a body that a response did not wait for is read to its end when it is no more than this.
_FORGOTTEN_BOUND: Final = 65536
_NOTHING: Final = b""
_NO_TRAILERS: Final[list[bytes]] = []


class Stream(BodyDeadline, StockStream, RequestStream, SendingStream):
    """The channel of one request. `deadline` is monotonic seconds; the connection's sweep looks at it.

    `remote_done`: the client has ended its side. The stream is over when it has, and all is sent, or when either side
    has reset it.
    """

    keep_alive: bool = True
    lingers = False
    # Whether a service, or a resource, has answered to the end.
    earned = False

    def __init__(self, connection: Connection, number: int, ended: bool, length: int | None) -> None:
        self.connection = connection
        self.site = connection.site
        self.transport = connection.transport
        self.number = number
        self.request: Http2Request | None = None
        self.remote_done = ended
        self.deadline = math.inf
        self.receive_window = ReceiveWindow(connection.window, number, length)
        self.send_window = SendWindow(self)
        # Whether an extended CONNECT has opened it, and its tunnel stands.
        self.upgrading = False
        self._tunnelling = False
        # Bytes of a body or a tunnel that no sink takes yet, in one piece: many small frames would cost more memory.
        self._kept: bytes | bytearray = _NOTHING
        self._forgotten = 0
        self._held = False
        self._held_for = 0.0

    # -- from the client

    def receive(self, data: bytes, ended: bool, size: int) -> None:
        """A DATA frame: `size` counts its padding too. Raises StreamError."""
        if self.remote_done:
            raise StreamError(STREAM_CLOSED, "DATA on a stream that its client has ended")
        self.receive_window.receive(len(data), size, ended)
        if ended:
            self._client_ended()
        request = self.request
        if request is None:
            self._forget(size)
            return
        if self.upgrading:
            self._receive_raw(request, data)
            return
        if self.receive_window.received > self.site.policy.max_body:
            request.body_failed(TOO_LARGE)
            return
        if not ended and not self._held and data:
            self._renew_deadline(len(data))
            self.connection.wake(self.deadline)
        request.exchange.bytes_in += len(data)
        if request.sink is not None and (self._kept or (self._held and not ended)):
            data = self._keep(data, ended)
        request.body_came(data, ended, _NO_TRAILERS)
        self._pay()

    def _keep(self, data: bytes, ended: bool = False) -> bytes:
        """Keep this while the service takes nothing. Returns everything kept once it may go on."""
        self._keep_on(data)
        if self._held and not ended:
            return _NOTHING
        kept, self._kept = bytes(self._kept), _NOTHING
        return kept

    def _keep_on(self, data: bytes) -> None:
        if not self._kept:
            self._kept = bytearray()
        self._kept += data

    def _receive_raw(self, request: Http2Request, data: bytes) -> None:
        """Bytes of a tunnel. Until the service has accepted it they wait, within the stream's window."""
        if not self._tunnelling:
            if data:
                self._keep_on(data)
            return
        if self._kept or self._held:
            data = self._keep(data, self.remote_done)
        if data and request.sink is not None:
            request.sink.body_received(data)
        if self.remote_done and self.request is request:
            request.half_closed()
        self._pay()

    def tunnel(self) -> None:
        """The service has switched protocols: pass on to it what has waited and whatever comes."""
        self._tunnelling = True
        if self.request is not None:
            self._receive_raw(self.request, b"")

    def end_sending(self) -> bool:
        """Tell the client that no more will come."""
        self.send_window.end()
        return True

    def _forget(self, size: int) -> None:
        """Bytes of a body that no request takes any more."""
        self._pay()
        self._forgotten += size
        if self.remote_done and self.send_window.all_sent:
            self.over(None)
        elif self._forgotten > _FORGOTTEN_BOUND and self.send_window.all_sent:
            self.over(NO_ERROR)

    def receive_trailers(self, lines: list[bytes] | None) -> None:
        """The client's body ends with trailers; None for such as are over their limits. Raises StreamError."""
        if self.upgrading:
            raise StreamError(PROTOCOL_ERROR, "trailers on a tunnel")
        self.receive_window.end()
        self._client_ended()
        request = self.request
        if request is None:
            self._forget(0)
            return
        if lines is None:
            request.body_failed(BROKEN)
            return
        kept, self._kept = bytes(self._kept), _NOTHING
        request.body_came(kept, True, lines)

    def _client_ended(self) -> None:
        self.remote_done = True
        if self.request is not None:
            # From here on the relay watches the time until the response.
            self.deadline = math.inf

    def _pay(self) -> None:
        """Enlarge the windows by what the service has taken."""
        if not self._held:
            self.receive_window.pay(more=not self.remote_done and not self.send_window.closed)

    def _may_hold(self) -> bool:
        return not self.remote_done

    def _expects_body(self) -> bool:
        return not self.remote_done

    def _body_held(self) -> None:
        self.connection.window.held += 1

    def _body_released(self) -> None:
        self._let_go()
        self.connection.wake(self.deadline)
        if self.request is not None:
            self._hand_on(self.request)
        self._pay()

    def _hand_on(self, request: Http2Request) -> None:
        """Deliver the buffered data to its receiver."""
        if self._kept and request.sink is not None and (self._tunnelling or not self.upgrading):
            kept, self._kept = bytes(self._kept), _NOTHING
            request.sink.body_received(kept)

    def _let_go(self) -> None:
        """The service takes the body again, or is done with it."""
        self._held = False
        self.connection.window.held -= 1
        self.connection.window.pay(0)

    # -- the end

    def settle_rest(self) -> None:
        """A response is about to be sent before its request's body has come: the stream ends with it."""

    def exchange_over(self, finished: bool) -> None:
        """The request's response is complete, or never will be."""
        request, self.request = self.request, None
        # The gateway's own refusals are cheap to ask for.
        self.earned = finished and request is not None and not request.exchange.code
        self._kept = _NOTHING
        if self._held:
            self._let_go()
            self._pay()
        send_window = self.send_window
        if send_window.closed or not finished:
            return
        send_window.exchange_over()
        if not send_window.closed and not send_window.all_sent:
            self._wait(self.site.timeouts.idle)

    def answered(self) -> None:
        """Everything is sent. The rest of the request's body is not needed (RFC 9113 section 8.1)."""
        if self.request is not None:
            return
        if self.remote_done:
            self.over(None)
            return
        # Discard a little more of the body: a reset could reach the client before the response.
        self._wait(self.site.timeouts.linger)

    def _wait(self, seconds: float) -> None:
        """Expire after so many seconds."""
        self.deadline = self.site.clock.now + seconds
        self.connection.wake(self.deadline)

    def cut(self, plain: bool) -> None:
        """Reset in the midst of a response; with `plain` it was the service that failed, else the client. What the
        service sent before it failed still goes out."""
        send_window = self.send_window
        if not plain or not send_window.waiting or send_window.closed:
            self.over(INTERNAL_ERROR if plain else CANCEL)
            return
        send_window.cut = True
        self._wait(self.site.timeouts.idle)

    def fail(self, code: int, event: str = BROKEN) -> None:
        """The client broke the stream's rules: end it, and whatever is in flight on it."""
        request = self.request
        if request is not None:
            request.broken(event)
        self.over(code)

    def fail_silently(self, code: int) -> None:
        """The client broke the connection's rules. The GOAWAY says so; nothing more is sent on the stream."""
        self.send_window.closed = True
        self.fail(code)

    def reset(self) -> None:
        """The client has reset the stream, or its connection is gone."""
        self.send_window.closed = True
        request = self.request
        if request is not None:
            request.lost(Failure(ConnectionAborted()))
        self.over(None)

    def cut_short(self) -> None:
        """The client sends no more on any stream, so a request without its end is reset. If it was answered before
        its end, only the response is left to send."""
        if self.remote_done:
            return
        if self.request is not None or self.send_window.all_sent:
            self.reset()
        else:
            self.remote_done = True

    def over(self, code: int | None) -> None:
        """The stream is closed; with a code the client is told."""
        connection, send_window = self.connection, self.send_window
        served = self.earned and not send_window.closed and (code is None or code == NO_ERROR)
        if code is not None and not send_window.closed:
            connection.streams.was_reset(self.number)
            connection.out.send(reset_frame(self.number, code))
        self.deadline = math.inf
        self._kept = _NOTHING
        if self._held:
            self._let_go()
        send_window.close()
        self.receive_window.pay(more=False)
        connection.streams.over(self.number, served)

    def expire(self) -> None:
        """The stream's deadline has passed: of its body, or of a client that does not take its response."""
        request = self.request
        if request is not None:
            if self.remote_done:
                self.deadline = math.inf
            else:
                request.body_failed(SLOW)
        elif self.send_window.all_sent:
            self.over(NO_ERROR)
        elif self.taking():
            self._wait(self.site.timeouts.idle)
        else:
            self.over(CANCEL)

    def taking(self) -> bool:
        """Whether the client takes what is on its way. For bytes that wait here its pace is checked elsewhere
        (`too_slow`); for the rest the kernel's count decides."""
        return self.connection.out.awaited or self.connection.taking(self.site.timeouts.idle)

    def too_slow(self) -> None:
        """The client reads its response too slowly."""
        self.fail(CANCEL, TIMEOUT)

    def loseConnection(self) -> None:
        """A stock request closes its connection. Over HTTP/2 only the stream ends."""
        request = self.request
        if request is not None:
            request.lost(Failure(ConnectionAborted()))
        if not self.send_window.closed:
            self.over(CANCEL)
