"""What an HTTP/1.1 client sends, taken apart into heads and bodies, a slice of work a turn."""

from __future__ import annotations

import math
from typing import Final

from ..downstream.ports import ClientSite
from ..errors import BAD_FRAMING, BODY_TOO_LARGE, Refusal
from ..exchange.states import BROKEN, TOO_LARGE
from ..reactor.turns import FULL_READ, PIECES, end_turn
from ..wire.body import BodyError, ChunkedDecoder
from ..wire.head_probe import HeadProbe
from ..wire.request_head import KEPT_HEAD, RequestHead
from ..wire.request_syntax import oversized
from ..wire.unread_head import known_of
from .flow_control import ClientFlow
from .phases import BODY, BUSY, FORGETFUL, HEAD, IDLE, RAW, TUNNEL

_HEAD_END: Final = b"\r\n\r\n"
_CR: Final = 0x0D
_NO_TRAILERS: Final[list[bytes]] = []
# Of a chunked body as much is decoded before the clock is looked at.
_CHUNKED_PIECE: Final = 16384
# Room in bytes, of which a read is half. Where few wait it is the least, whatever the service takes, since smaller
# reads cost bulk a tenth of its processor time. Where many wait it is the most, since what they bring in one turn is
# sent on at its end; and so it is for a chunked body, since what comes behind its end is not known.
_ROOM: Final = 1 << 17


class MessageReader(ClientFlow):
    """The base of the channel that reads. Subclasses begin an exchange with a head (`_begin`), go on when the rest of
    a body that nobody waits for has come (`_settled`)."""

    keep_alive: bool
    # Whether the client has ended its side.
    _ended = False
    # These are of the class until they are needed, as in `ClientFlow`.
    _probe: HeadProbe | None = None
    _chunked_bytes = 0

    def __init__(self, site: ClientSite) -> None:
        super().__init__(site)
        self._reading = False
        self._head: RequestHead | None = None
        self._remaining = 0
        self._decoder: ChunkedDecoder | None = None
        self._trailers = _NO_TRAILERS

    def _begin(self, head: RequestHead) -> None:
        """A head is complete: begin its exchange."""

    def _settled(self) -> None:
        """Ready for the next request, which may be here already."""

    def _judge_end(self) -> None:
        """The client sends no more, and what could be read of what it has sent has been read."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client, in pieces of any size."""
        unread, phase, turns = self._unread, self._phase, self._turns
        # Asked in two steps, as in `tls.stream`, where the transport has not asked already.
        if turns is not None and turns.time() >= turns.ends and self._has_to_wait():
            unread.add(data)
            self._wait_for_turn(len(data))
            return
        if not unread.data:
            if phase == IDLE:
                # One head and nothing else, as almost always.
                size = data.find(_HEAD_END) + len(_HEAD_END)
                if 3 < size == len(data) <= self.site.max_head and data[0] != _CR and not self._full:
                    self._reading = True
                    self._read_head(data)
                    self._reading = False
                    if turns is not None and turns.early.sent >= turns.early.most:
                        turns.early.look()
                    return
            elif phase == BODY and self._decoder is None:
                self._read_length(data)
                if len(data) >= FULL_READ:
                    end_turn(self.transport)
                if unread.data:
                    self._read_on()
                return
        if phase in FORGETFUL:
            self._forgotten += len(data)
            self._regulate()
            return
        unread.add(data)
        self._read_on()

    def _has_to_wait(self) -> bool:
        """Whether what has come is more than bytes to be passed on, and comes late in a turn."""
        heavy = self._phase <= HEAD or self._decoder is not None
        return heavy and self._turns is not None and self._turns.over()

    def body_room(self) -> int:
        """Bytes that the transport may read at once, 0 for a little: of a tunnel as much as its service takes, of a
        body that or more, and not what comes behind a body, which nobody takes. What is forgotten is read as it
        comes."""
        phase = self._phase
        if phase in FORGETFUL:
            # In few reads: what is forgotten should cost as little as can be.
            return 2 * self._room_to_forget()
        if phase == BODY and self.request is None and self._decoder is None:
            return 2 * min(self._remaining, _ROOM)
        sink = None if self.request is None or phase not in RAW else self.request.sink
        if sink is None or not sink.streams:
            return 0
        room = sink.body_room()
        size = min(room, _ROOM) if phase == TUNNEL or self.site.crowded else max(room, _ROOM)
        if phase == BODY:
            size = min(size, 2 * self._remaining if self._decoder is None else _ROOM)
        return size

    def _read_on(self) -> None:
        """Read the buffered data, while nothing has to be waited for and the slice of this turn lasts."""
        if self._reading or self._turn_over:
            return
        turns = self.site.turns
        until, left = turns.slice(), PIECES
        self._reading = True
        while self._read_piece():
            left -= 1
            if self._unread.data and (not left or turns.time() >= until):
                # Let other connections go first.
                self._yield_turn()
                break
        self._reading = False
        self._regulate()
        if self._ended:
            self._judge_end()

    def _read_piece(self) -> bool:
        """Read one head, or one piece of a body; false where there is none, or where it has to wait."""
        unread, phase = self._unread, self._phase
        if not unread.data:
            return False
        if phase == BODY:
            if self._held:
                return False
            if self._decoder is None:
                self._read_length(unread.read(len(unread)))
            else:
                self._read_chunks(unread.read(_CHUNKED_PIECE))
            return True
        if phase > HEAD or self._full:
            return False
        unread.skip_empty_lines()
        size = unread.head_size()
        if not size or size > self.site.max_head:
            self._keep_partial()
            return False
        self._read_head(unread.read(size))
        return True

    # -- heads

    def _keep_partial(self) -> None:
        """No whole head yet: look whether it can still become one."""
        unread, site = self._unread, self.site
        size = len(unread)
        if not size:
            return
        if self._phase == IDLE:
            self._phase = HEAD
            self.deadline = site.clock.now + site.timeouts.head
        so_far = unread.so_far()
        if size > site.max_head:
            self._refuse_unread(bytes(so_far[: site.max_head]), oversized(bytes(so_far), site.max_line))
            return
        if size > site.max_line and so_far.find(b"\n", 0, site.max_line + 1) < 0:
            self._refuse_unread(bytes(so_far), oversized(bytes(so_far), site.max_line))
            return
        if self._probe is None:
            self._probe = HeadProbe()
        fault = self._probe.fault(unread.new(), so_far)
        if fault is not None:
            self._refuse_unread(bytes(so_far), fault)

    def _read_head(self, raw: bytes) -> None:
        """A head is whole."""
        if self._probe is not None:
            self._probe = None
        head = self.site.reader.read(raw, self._head)
        # The next one may be the same; a large one is not worth its memory until then.
        self._head = head if len(raw) <= KEPT_HEAD else None
        self._begin(head)

    def _refuse_unread(self, raw: bytes, refusal: Refusal) -> None:
        """Refuse an unreadable head. Nothing after it on this connection can be a request."""
        method = raw[:8].partition(b" ")[0]
        head = RequestHead(b"HEAD" if method == b"HEAD" else b"", b"", 1, [])
        head.refusal = refusal.closing()
        head.host, head.origin, head.page = known_of(raw)
        head.keep_alive = False
        self._probe = None
        self._unread.clear()
        self._begin(head)

    # -- bodies

    def _first_of_body(self, head: RequestHead) -> bytes:
        """What has come of the body with the head, or its first piece."""
        unread = self._unread
        if head.chunked:
            self._decoder = self.site.reader.body_decoder(head)
            self._chunked_bytes = 0
            return self._decode(unread.read(_CHUNKED_PIECE)) if unread.data else b""
        length = head.length or 0
        body = unread.read(length) if length and unread.data else b""
        self._remaining = length - len(body)
        return body

    def _decode(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        body = decoder.feed(data)
        self._chunked_bytes = decoder.received
        if decoder.done:
            self._unread.put_back(decoder.rest)
            self._trailers = decoder.trailers
            self._decoder = None
        return body

    def _read_chunks(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            body = self._decode(data)
        except BodyError as error:
            self._body_failed(BROKEN, BAD_FRAMING.because(str(error)))
            return
        if decoder.received > self.site.policy.max_body and self.request is not None:
            self._body_failed(TOO_LARGE, BODY_TOO_LARGE)
            return
        self._pass_on(body, decoder.done, decoder.trailers)

    def _read_length(self, data: bytes) -> None:
        remaining = self._remaining
        if len(data) > remaining:
            self._unread.put_back(data[remaining:])
            data = data[:remaining]
        self._remaining -= len(data)
        self._pass_on(data, not self._remaining, _NO_TRAILERS)

    def _pass_on(self, body: bytes, done: bool, trailers: list[bytes]) -> None:
        """Pass a piece of the body on to the request, or discard it."""
        request = self.request
        if request is None:
            if done:
                self._settled()
            return
        request.exchange.bytes_in += len(body)
        if done:
            self._phase = BUSY
            self.deadline = math.inf
        elif body and not self._held:
            self._renew_deadline(len(body))
        request.body_came(body, done, trailers)

    def _body_failed(self, event: str, refusal: Refusal) -> None:
        request = self.request
        self.keep_alive = False
        if request is None:
            self._linger()
        else:
            request.body_failed(event, refusal)
