"""A client that sends HTTP/2 frames as a test makes them, and judges every frame that comes back.

Whatever RFC 9113 forbids a server to send fails the test at once: a frame beyond the windows or the frame size, a
field that has no place in HTTP/2, a frame on a stream that is over, an acknowledgement of nothing.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hpack

from tests.kit.clients import dial, reset
from tests.kit.http2_frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Fields,
    Frame,
    frames_of,
    headers,
    ping,
    settings,
    window_update,
)
from tests.kit.recording import HOST
from tests.kit.waiting import PATIENCE

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_OF_A_CONNECTION = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


class Violation(AssertionError):
    """The server has sent what RFC 9113 forbids."""


def _require(condition: object, what: str) -> None:
    if not condition:
        raise Violation(what)


@dataclass
class Answer:
    """What has come on one stream. `complete`: END_STREAM was there; `reset`: the code of a RST_STREAM."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    complete: bool = False
    reset: int | None = None
    size: int = 0  # of its DATA frames with their padding
    credit: int = 0  # of the WINDOW_UPDATEs sent for it

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this name."""
        return [value for each, value in self.fields if each == name]

    def value(self, name: bytes) -> bytes | None:
        """The value of the only field of this name; None without one."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} stands {len(values)} times"
        return values[0] if values else None

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self.complete or self.reset is not None


def _check_fields(fields: Fields) -> None:
    for name, value in fields:
        _require(_NAME.fullmatch(name), f"field name {name!r}")
        _require(_VALUE.fullmatch(value), f"value {value!r} of {name!r}")
        _require(name not in _OF_A_CONNECTION, f"{name!r} has no place in HTTP/2 (8.2.2)")


_trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_trusting.check_hostname = False
_trusting.verify_mode = ssl.CERT_NONE
_trusting.set_alpn_protocols(["h2"])


class Http2Client:
    """One connection; a context manager. `answers` holds what has come by stream, `goaways` the codes of GOAWAY,
    `ended` how the server has ended the connection ("" while it has not, "closed", "cut", "reset"), `given` what it
    has added to its windows, by stream.

    `target` is only kept for the test: where its requests go.
    """

    def __init__(self, connection: socket.socket, target: object = None) -> None:
        self.socket = connection
        self.target = target
        self.answers: dict[int, Answer] = {}
        self.goaways: list[int] = []
        self.ended = ""
        self.settings: dict[int, int] = {}
        self.given: dict[int, int] = {}
        self.last: Frame | None = None
        self._decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self._buffer = b""
        self._gathering: tuple[int, bool, bytes] | None = None
        self._unacknowledged: list[int | None] = []
        self._initial = DEFAULT_WINDOW
        self._size = 0
        self._credit = 0
        self._pings: list[bytes] = []
        self._fences = 0

    @classmethod
    def connect(
        cls,
        port: int,
        host: bytes,
        *,
        secure: bool = True,
        target: object = None,
        receive_buffer: int = 0,
        source: str = "",
    ) -> Http2Client:
        """Connect to a port of 127.0.0.1, from the address `source`; the TLS name is `host`."""
        connection = dial(port, receive_buffer=receive_buffer, source=source)
        if secure:
            try:
                connection = _trusting.wrap_socket(
                    connection, server_hostname=host.decode(), suppress_ragged_eofs=False
                )
                chosen = connection.selected_alpn_protocol()
                assert chosen == "h2", f"ALPN chose {chosen}"
            except BaseException:
                connection.close()
                raise
        return cls(connection, target)

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    # What goes out

    def send(self, *pieces: bytes) -> bool:
        """Send all of it in one go. False when the server takes no more; the rest is then lost."""
        data = b"".join(pieces)
        self.remember(data)
        return self.send_raw(data)

    def remember(self, data: bytes) -> None:
        """Know of these frames, which go out by `send_raw`."""
        for sent in frames_of(data):
            self._remember(sent)

    def send_raw(self, data: bytes) -> bool:
        """Send bytes of which nothing is remembered."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, ssl.SSLError):
            return False
        return True

    def _remember(self, sent: Frame) -> None:
        if sent.kind == HEADERS:
            self.answers.setdefault(sent.stream, Answer())
        elif sent.kind == SETTINGS and not sent.flags & ACK:
            value = None
            for start in range(0, len(sent.payload) - 5, 6):
                if int.from_bytes(sent.payload[start : start + 2], "big") == INITIAL_WINDOW_SIZE:
                    value = int.from_bytes(sent.payload[start + 2 : start + 6], "big")
            self._unacknowledged.append(value)
        elif sent.kind == WINDOW_UPDATE and len(sent.payload) == 4:
            increment = int.from_bytes(sent.payload, "big")
            if not sent.stream:
                self._credit += increment
            elif sent.stream in self.answers:
                self.answers[sent.stream].credit += increment
        elif sent.kind == PING and not sent.flags & ACK:
            self._pings.append(sent.payload)

    def start(self, *values: tuple[int, int]) -> Http2Client:
        """Send the preface with these settings; return when both sides have acknowledged."""
        self.send(PREFACE, settings(*values))
        self.settle()
        return self

    def settle(self) -> None:
        """Read until the server has said its settings and has acknowledged all that were sent."""
        while not self.last or self._unacknowledged:
            assert self.next() is not None, f"the connection ended: {self.described()}"

    def change(self, *values: tuple[int, int]) -> None:
        """Send settings and wait until they are acknowledged."""
        self.send(settings(*values))
        self.settle()

    # What comes in

    def next(self, patience: float = PATIENCE) -> Frame | None:
        """The next frame, judged; None at the end of the connection. Fails when nothing comes in time."""
        ends = time.monotonic() + patience
        while not self.ended:
            if len(self._buffer) >= 9:
                length = int.from_bytes(self._buffer[:3], "big")
                _require(length <= DEFAULT_FRAME, f"a frame of {length} bytes (4.2)")
                if len(self._buffer) >= 9 + length:
                    (came,) = frames_of(self._buffer[: 9 + length])
                    self._buffer = self._buffer[9 + length :]
                    self._judge(came)
                    self.last = came
                    return came
            left = ends - time.monotonic()
            if left <= 0 or not self._fill(left):
                raise AssertionError(f"nothing comes any more: {self.described()}")
        return None

    def comes(self, patience: float) -> bool:
        """Whether a frame or the end comes in this time."""
        try:
            self.next(patience)
        except Violation:
            raise
        except AssertionError:
            return False
        return True

    def _fill(self, patience: float) -> bool:
        """Read once; False when nothing came in time."""
        self.socket.settimeout(patience)
        try:
            came = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except ConnectionError:
            self.ended = "reset"
            return True
        except ssl.SSLError:
            self.ended = "cut"
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        if not came:
            self.ended = "closed"
            if self._buffer:
                raise Violation(f"the connection ends within a frame: {self._buffer[:32]!r}")
        self._buffer += came
        return True

    def drain(self) -> None:
        """Judge what has come so far, without waiting."""
        while not self.ended and self._fill(0.0):
            while not self.ended and len(self._buffer) >= 9 + int.from_bytes(self._buffer[:3], "big"):
                self.next()

    def described(self) -> str:
        """What has come so far."""
        answers = {
            stream: (answer.status, len(answer.body), answer.complete, answer.reset)
            for stream, answer in list(self.answers.items())[:8]
        }
        return f"last {self.last}, answers {answers}, goaways {self.goaways}, ended {self.ended!r}"

    def _judge(self, came: Frame) -> None:
        if self._gathering is not None:
            stream, _, _ = self._gathering
            _require(came.kind == CONTINUATION and came.stream == stream, f"{came} within a field block (4.3)")
        if self.last is None:
            _require(came.kind == SETTINGS and not came.flags & ACK, f"{came} comes first, not SETTINGS (3.4)")
        judge = _JUDGES.get(came.kind)
        _require(judge, f"an unexpected frame {came}")
        assert judge is not None
        judge(self, came)

    def _judge_settings(self, came: Frame) -> None:
        _require(came.stream == 0, f"{came}: settings of a stream (6.5)")
        if came.flags & ACK:
            _require(not came.payload, f"{came}: an acknowledgement with a payload (6.5)")
            _require(self._unacknowledged, "settings acknowledged that were not sent")
            value = self._unacknowledged.pop(0)
            self._initial = self._initial if value is None else value
            return
        _require(len(came.payload) % 6 == 0, f"{came}: a broken SETTINGS (6.5)")
        for start in range(0, len(came.payload), 6):
            key = int.from_bytes(came.payload[start : start + 2], "big")
            self.settings[key] = int.from_bytes(came.payload[start + 2 : start + 6], "big")
        self.send_raw(SETTINGS_ACK)

    def _stream(self, came: Frame) -> Answer:
        _require(came.stream in self.answers, f"{came} on an idle stream (5.1)")
        return self.answers[came.stream]

    def _judge_headers(self, came: Frame) -> None:
        answer = self._stream(came)
        _require(not answer.over, f"{came} on a stream that is over (5.1)")
        payload = came.payload
        if came.flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if came.flags & PRIORITIZED:
            payload = payload[5:]
        self._gathering = (came.stream, bool(came.flags & END_STREAM), payload)
        self._gathered(came.flags)

    def _judge_continuation(self, came: Frame) -> None:
        _require(self._gathering, f"{came} without HEADERS (6.10)")
        assert self._gathering is not None
        stream, ends, block = self._gathering
        self._gathering = (stream, ends, block + came.payload)
        self._gathered(came.flags)

    def _gathered(self, flags: int) -> None:
        if not flags & END_HEADERS or self._gathering is None:
            return
        (stream, ends, block), self._gathering = self._gathering, None
        answer = self.answers[stream]
        fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        if answer.status >= 200:
            _check_fields(fields)
            _require(ends, "trailers without END_STREAM (8.1)")
            answer.trailers = fields
        else:
            _require(fields and fields[0][0] == b":status", f"no :status first in {fields} (8.3.2)")
            _check_fields(fields[1:])
            status = int(fields[0][1])
            if status < 200:
                _require(not ends and status != 101, f"an interim answer {fields} (8.1, 8.6)")
                answer.interim.append(status)
            else:
                answer.status, answer.fields = status, fields[1:]
        answer.complete = ends

    def _judge_data(self, came: Frame) -> None:
        answer = self._stream(came)
        _require(not answer.over, f"DATA on stream {came.stream}, which is over (5.1)")
        _require(answer.status, "DATA before HEADERS (8.1)")
        size = len(came.payload)
        answer.size += size
        self._size += size
        initial = max([self._initial, *(value for value in self._unacknowledged if value is not None)])
        if size:
            _require(answer.size <= initial + answer.credit, f"{size} bytes beyond a stream's window (6.9.1)")
            _require(self._size <= DEFAULT_WINDOW + self._credit, f"{size} bytes beyond the window (6.9.1)")
        payload = came.payload
        if came.flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        answer.body += payload
        answer.complete = bool(came.flags & END_STREAM)
        length = answer.value(b"content-length")
        if answer.complete and length is not None and answer.body:
            _require(int(length) == len(answer.body), f"{len(answer.body)} bytes, announced {length!r} (8.1.1)")

    def _judge_reset(self, came: Frame) -> None:
        _require(len(came.payload) == 4, f"{came}: a broken RST_STREAM (6.4)")
        # A stream that was passed over is closed, not idle (5.1.1).
        _require(came.stream % 2 and came.stream <= max(self.answers, default=0), f"{came} of an idle stream (5.1)")
        answer = self.answers.setdefault(came.stream, Answer())
        if answer.reset is None:
            answer.reset = int.from_bytes(came.payload, "big")

    def _judge_ping(self, came: Frame) -> None:
        _require(len(came.payload) == 8 and not came.stream, f"{came}: a broken PING (6.7)")
        if came.flags & ACK:
            _require(came.payload in self._pings, f"{came} answers no PING that was sent (6.7)")
            self._pings.remove(came.payload)
        else:
            self.send_raw(ping(came.payload, ack=True))

    def _judge_goaway(self, came: Frame) -> None:
        _require(len(came.payload) >= 8 and not came.stream, f"{came}: a broken GOAWAY (6.8)")
        last = int.from_bytes(came.payload[:4], "big") & 0x7FFFFFFF
        # 2^31-1 announces a graceful end, else it is a stream that the client has opened.
        highest = max([stream for stream in self.answers if stream % 2], default=0)
        _require(last == (1 << 31) - 1 or last <= highest, f"GOAWAY names stream {last} of {highest} (6.8)")
        self.goaways.append(int.from_bytes(came.payload[4:8], "big"))

    def _judge_window_update(self, came: Frame) -> None:
        _require(len(came.payload) == 4, f"{came}: a broken WINDOW_UPDATE (6.9)")
        _require(int.from_bytes(came.payload, "big"), f"{came}: a window update of 0 (6.9)")
        if came.stream:
            self._stream(came)
        self.given[came.stream] = self.given.get(came.stream, 0) + int.from_bytes(came.payload, "big")

    # What is expected

    def fence(self) -> None:
        """Return once the server has dealt with all that was sent: it answers a PING then."""
        self._fences += 1
        payload = b"fence%03d" % (self._fences % 1000)
        self.send(ping(payload))
        while payload in self._pings:
            assert self.next() is not None, f"the connection ended: {self.described()}"

    def answer(self, stream: int = 1, *, refill: bool = False) -> Answer:
        """The answer on a stream once it is over. `refill`: give back what it has taken of the windows."""
        while not self.answers[stream].over:
            came = self.next()
            assert came is not None, f"the connection ended: {self.described()}"
            if refill and came.kind == DATA and came.payload:
                self.send(window_update(0, len(came.payload)))
                if not self.answers[came.stream].over:
                    self.send(window_update(came.stream, len(came.payload)))
        return self.answers[stream]

    def head(self, stream: int = 1) -> Answer:
        """The answer on a stream as soon as its final head is here."""
        while not self.answers[stream].status:
            assert self.next() is not None, f"the connection ended: {self.described()}"
            assert self.answers[stream].reset is None, f"reset: {self.described()}"
        return self.answers[stream]

    def data(self, stream: int, size: int) -> Answer:
        """The answer on a stream once so many bytes of its body are here."""
        while len(self.answers[stream].body) < size:
            assert self.next() is not None, f"the connection ended: {self.described()}"
            assert self.answers[stream].reset is None, f"reset: {self.described()}"
        return self.answers[stream]

    def end(self) -> None:
        """Return once the server has ended the connection."""
        while self.next() is not None:
            pass

    def breaks(self, *codes: int) -> None:
        """A connection error (5.4.1): GOAWAY with one of the codes and the end, or the end alone."""
        self.end()
        wrong = [code for code in self.goaways if code not in codes]
        assert not wrong, f"GOAWAY says {wrong}, not one of {codes}"

    def refuses(self, stream: int, *codes: int) -> None:
        """A stream error (5.4.2): RST_STREAM with one of the codes, or a connection error with one.

        A stream that has its whole answer may have been reset for that (8.1); then STREAM_CLOSED is right too.
        """
        answer = self.answers.setdefault(stream, Answer())
        while answer.reset not in codes and not self.goaways and not self.ended:
            early = answer.complete and answer.reset in (None, NO_ERROR, CANCEL)
            assert answer.reset is None or early, f"RST_STREAM says {answer.reset}, not one of {codes}"
            self.next()
        allowed = (*codes, STREAM_CLOSED) if answer.complete else codes
        assert all(code in allowed for code in self.goaways), f"GOAWAY says {self.goaways}, not one of {codes}"

    def lives(self) -> None:
        """The connection is whole: no GOAWAY, and a PING is answered."""
        self.fence()
        assert not self.goaways, self.described()

    def abort(self) -> None:
        """Leave with a reset."""
        with contextlib.suppress(OSError):
            reset(self.socket)


_JUDGES = {
    DATA: Http2Client._judge_data,
    HEADERS: Http2Client._judge_headers,
    RST_STREAM: Http2Client._judge_reset,
    SETTINGS: Http2Client._judge_settings,
    PING: Http2Client._judge_ping,
    GOAWAY: Http2Client._judge_goaway,
    WINDOW_UPDATE: Http2Client._judge_window_update,
    CONTINUATION: Http2Client._judge_continuation,
}


@contextlib.contextmanager
def holding(gateway: Any, path: bytes, asking: bytes) -> Iterator[None]:
    """A gateway whose service holds back its answers at `path` meanwhile. Afterwards it answers another client's
    request (a field block for its own host), and has logged nothing alarming."""
    gateway.origin.forget()
    gateway.origin.held.add(path)
    yield
    gateway.origin.release(path)
    with Http2Client.connect(gateway.port, HOST) as other:
        other.start().send(headers(1, asking))
        assert other.answer().status == 200
    gateway.assert_quiet()
