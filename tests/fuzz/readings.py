"""How three readers take a stream of messages apart: the gateway's, llhttp's and h11's.

A `Reading` is one message as one of them has it. A stream is read until a message is refused, is not whole, or is the
last one of its connection; `refusal` says why in the first case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import h11
import httptools

from koder_gateway.wire.body import BodyError, ChunkedDecoder
from koder_gateway.wire.request_head import RequestHead
from koder_gateway.wire.request_reader import RequestReader
from koder_gateway.wire.response import ResponseError, ResponseHead, ResponseReader

Fields = list[tuple[bytes, bytes]]

REQUESTS = RequestReader(b"X-Tenant-ID", max_target=8192, max_fields=256)
RESPONSES = ResponseReader(b"X-Tenant-ID")
# What h11 may buffer: more than any input has.
_ROOM = 1 << 20
_SLACK = 1 << 20


@dataclass
class Reading:
    """One message. `body` is what has come of it, `whole` whether that is all. `start` is the method or the status.
    `last` says that nothing may follow on the connection, `switching` that the next bytes may be of another protocol.
    `head` is the gateway's own, where the gateway has read it, `raw` are its bytes, `behind` is what came behind
    them, `every` are all fields of a response, those as well that do not go on. `after_interim`: an interim response
    came before it."""

    start: bytes
    target: bytes
    minor: int
    fields: Fields
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    last: bool = False
    switching: bool = False
    raw: bytes = b""
    behind: bytes = b""
    every: Fields = field(default_factory=list)
    after_interim: bool = False
    head: Any = None


@dataclass
class Stream:
    """The messages of one connection, and why the reader has stopped; "" where more may come."""

    messages: list[Reading] = field(default_factory=list)
    refusal: str = ""


def _clean(fields: Fields) -> Fields:
    return [(name.lower(), value.strip(b" \t")) for name, value in fields]


# -- the gateway's


def our_requests(data: bytes) -> Stream:
    """The requests in `data`, as a channel takes them apart."""
    stream = Stream()
    before: RequestHead | None = None
    while True:
        while data.startswith(b"\r\n"):
            data = data[2:]
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return stream
        raw, data = data[:end], data[end:]
        head = REQUESTS.read(raw, before)
        if head.refusal is not None:
            stream.refusal = head.refusal.detail or head.refusal.title
            return stream
        said = Reading(head.method, head.target, head.minor, _clean(head.fields), raw=raw, behind=data, head=head)
        said.every = said.fields
        said.last, said.switching = not head.keep_alive, head.upgrade is not None
        stream.messages.append(said)
        before = head
        decoder = REQUESTS.body_decoder(head) if head.chunked else None
        rest = _take_body(stream, said, data, head.length, decoder)
        if rest is None or said.last or said.switching:
            return stream
        data = rest


def _take_body(
    stream: Stream, said: Reading, data: bytes, length: int | None, decoder: ChunkedDecoder | None
) -> bytes | None:
    """What comes behind the body; None where it is not whole, or broken."""
    if decoder is not None:
        try:
            said.body += decoder.feed(data)
        except BodyError as error:
            stream.refusal = str(error)
            return None
        said.whole = decoder.done
        return decoder.rest if decoder.done else None
    if length is None:
        said.body += data
        return None
    said.body += data[:length]
    said.whole = len(data) >= length
    return data[length:] if said.whole else None


def our_responses(data: bytes, *, to_head: bool) -> Stream:
    """The responses in `data`, all to requests of the same kind, the interim ones with them."""
    stream = Stream()
    while True:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return stream
        raw, data = data[:end], data[end:]
        try:
            head = RESPONSES.read(raw, to_head, False)
        except ResponseError as error:
            stream.refusal = str(error)
            return stream
        said = Reading(b"%d" % head.status, head.reason, head.minor, _lines(head), raw=raw, behind=data, head=head)
        said.every = _clean([line.partition(b":")[::2] for line in raw.split(b"\r\n")[1:-2]])
        said.after_interim = bool(stream.messages) and stream.messages[-1].start < b"200"
        stream.messages.append(said)
        said.switching = head.status == 101
        if head.status < 200:
            said.whole = True
            if said.switching:
                return stream
            continue
        said.last = not head.keep_alive
        decoder = RESPONSES.body_decoder(head, _SLACK) if head.chunked else None
        rest = _take_body(stream, said, data, head.length, decoder)
        if rest is None or said.last:
            return stream
        data = rest


def _lines(head: ResponseHead) -> Fields:
    parts = [line.rstrip(b"\r\n").partition(b": ") for line in head.lines]
    return _clean([(name, value) for name, _, value in parts])


# -- llhttp's


class _Sink:
    """Collects what httptools reports."""

    def __init__(self, response: bool) -> None:
        self.stream = Stream()
        self.parser: Any = (httptools.HttpResponseParser if response else httptools.HttpRequestParser)(self)
        self._response = response
        self._start = b""
        self._fields: Fields = []

    def on_message_begin(self) -> None:
        self._start, self._fields = b"", []

    def on_url(self, url: bytes) -> None:
        self._start += url

    def on_status(self, reason: bytes) -> None:
        self._start += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        start = b"%d" % parser.get_status_code() if self._response else parser.get_method()
        said = Reading(start, self._start, int(parser.get_http_version()[-1]), _clean(self._fields))
        said.switching = parser.should_upgrade()
        self.stream.messages.append(said)

    def on_body(self, data: bytes) -> None:
        self.stream.messages[-1].body += data

    def on_message_complete(self) -> None:
        said = self.stream.messages[-1]
        said.whole = True
        said.last = not self.parser.should_keep_alive()


def llhttp(data: bytes, *, response: bool) -> Stream:
    """The messages that llhttp finds in `data`."""
    sink = _Sink(response)
    try:
        sink.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        sink.stream.refusal = str(error) or type(error).__name__
    return sink.stream


# -- h11's


def h11_requests(data: bytes) -> Stream:
    """The requests that h11 finds in `data`."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_ROOM)
    connection.receive_data(data)
    stream = Stream()
    while _take_event(stream, connection):
        if connection.their_state is h11.MIGHT_SWITCH_PROTOCOL:
            stream.messages[-1].switching = True
            return stream
        if stream.messages[-1].whole:
            stream.messages[-1].last = connection.their_state is h11.MUST_CLOSE
            if connection.their_state is not h11.DONE:
                return stream
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                stream.messages[-1].last = True
                return stream
            connection.start_next_cycle()
    return stream


def h11_responses(data: bytes, *, to_head: bool) -> Stream:
    """The responses that h11 finds in `data`."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ROOM)
    connection.receive_data(data)
    stream = Stream()
    asked = h11.Request(method=b"HEAD" if to_head else b"GET", target=b"/", headers=[(b"Host", b"a")])
    connection.send(asked)
    connection.send(h11.EndOfMessage())
    while _take_event(stream, connection):
        said = stream.messages[-1]
        if said.whole and said.start >= b"200":
            if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                said.last = True
                return stream
            connection.start_next_cycle()
            connection.send(asked)
            connection.send(h11.EndOfMessage())
    return stream


def _take_event(stream: Stream, connection: h11.Connection) -> bool:
    """Add what comes next; false where nothing does."""
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        stream.refusal = str(error) or type(error).__name__
        return False
    if isinstance(event, h11.Request):
        minor = int(bytes(event.http_version)[-1:])
        stream.messages.append(Reading(bytes(event.method), bytes(event.target), minor, _of_h11(event)))
    elif isinstance(event, (h11.Response, h11.InformationalResponse)):
        minor = int(bytes(event.http_version)[-1:])
        said = Reading(b"%d" % event.status_code, bytes(event.reason), minor, _of_h11(event))
        said.whole = isinstance(event, h11.InformationalResponse)
        stream.messages.append(said)
    elif isinstance(event, h11.Data):
        stream.messages[-1].body += event.data
    elif isinstance(event, h11.EndOfMessage):
        stream.messages[-1].whole = True
    else:
        return False
    return True


def _of_h11(event: Any) -> Fields:
    return _clean([(bytes(name), bytes(value)) for name, value in event.headers])
