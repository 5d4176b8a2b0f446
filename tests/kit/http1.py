"""HTTP/1.1 as tests read it: one strict parser for clients, for services, and for bytes in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from koder_gateway.wire.oauth_error import OAUTH_ERRORS

Fields = list[tuple[bytes, bytes]]

_REQUEST = re.compile(rb"[A-Z]+ (?:/[\x21-\x7e]*|\*) HTTP/1\.1")
_ANSWER = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"[0-9a-f]{1,15}")
# The longest line that is read; what is longer has no end.
_LONGEST = 1 << 20


class Malformed(AssertionError):
    """Bytes that are no message."""


class Ended(Exception):
    """The peer has ended the connection. `how`: "closed" in order, "cut" within TLS, or "reset"."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class IncompleteError(AssertionError):
    """A message in memory has not ended yet."""


@dataclass
class Message:
    """One message as it came; the names of its fields keep their spelling.

    `ended` says how it ended: "complete", or how it was cut: "cut", "reset", or "nothing" when the connection closed
    without one. `raw` is its head, and of a recorded message all of it. `connection` is the number of the connection
    that it came on, counted from 1 by the service that recorded it.
    """

    start: bytes = b""
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[Message] = field(default_factory=list)
    ended: str = ""
    raw: bytes = b""
    connection: int = 0

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this name, whatever its case."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        """The value of the only field of this name; None without one."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} stands {len(values)} times"
        return values[0] if values else None

    def one(self, name: bytes) -> bytes:
        """The value of the field of this name, of which there is one."""
        (value,) = self.values(name)
        return value

    def get(self, name: str) -> str | None:
        """The value of the only field of this name as text; None without one."""
        value = self.value(name.encode())
        return None if value is None else value.decode("latin-1")

    def names(self) -> list[bytes]:
        """The names of all fields in order, in lower case."""
        return [name.lower() for name, _ in self.fields]

    @property
    def method(self) -> bytes:
        """The method of a request."""
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """The target of a request."""
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        """The status code of an answer; 0 where nothing came."""
        return int(self.start.split(b" ")[1]) if self.start else 0

    @property
    def reason(self) -> str:
        """The reason phrase of an answer."""
        return self.start.split(b" ", 2)[2].decode()

    @property
    def complete(self) -> bool:
        """Whether the message has a clean end."""
        return self.ended == "complete"

    @property
    def problem(self) -> dict[str, Any]:
        """The problem details (RFC 9457) of an answer of the gateway's own, which an OAuth error has too (RFC 6749
        section 5.2)."""
        document: dict[str, Any] = json.loads(self.body)
        if self.value(b"content-type") == b"application/json":
            error, description = document.pop("error"), document.pop("error_description")
            assert error == OAUTH_ERRORS[document["code"]]
            assert not set('"\\') & set(description), description
            assert document.pop("error_uri") == document["type"]
        else:
            assert self.value(b"content-type") == b"application/problem+json", self
        assert set(document) == {"type", "title", "status", "code", "detail", "request_id"}
        assert document["status"] == self.status
        assert document["type"] == f"https://docs.koder.dev/gateway/errors/{document['code']}"
        assert self.get("cache-control") == "no-store"
        assert self.get("x-content-type-options") == "nosniff"
        assert document["title"] == self.reason
        assert self.get("x-request-id") == document["request_id"]
        return document

    @property
    def code(self) -> str:
        """The code of a problem; "" for any other answer."""
        kind = self.value(b"content-type")
        if kind != b"application/problem+json" and not (kind == b"application/json" and b'{"error":"' in self.body):
            return ""
        return str(self.problem["code"])


class Reader:
    """Reads messages, one after the other, out of what `receive` returns; `receive` raises where there is no more.

    What RFC 9112 does not allow, and what can be read in two ways, is Malformed. With `record` each message has all
    of its bytes in `raw`.
    """

    def __init__(self, receive: Callable[[], bytes], *, record: bool = False) -> None:
        self._receive = receive
        self._data = b""
        self._at = 0
        self._record = record
        self._keeps = False
        self._read = bytearray()

    @property
    def rest(self) -> bytes:
        """What has been received and not been taken."""
        return self._data[self._at :]

    @property
    def begun(self) -> bytes:
        """What has come of a head that is not complete."""
        return bytes(self._read) + self.rest if self._keeps else self.rest

    def put_back(self, data: bytes) -> None:
        """Let what was taken come next again."""
        self._data, self._at = data + self.rest, 0

    def take(self) -> bytes:
        """What has been received and not been taken, which no message gets any more."""
        rest, self._data, self._at = self.rest, b"", 0
        return rest

    def some(self, most: int = 1 << 18) -> bytes:
        """What comes next, at most so many bytes; waits for it where nothing is there."""
        if self._at == len(self._data):
            self._data, self._at = self._receive(), 0
        return self._take(min(most, len(self._data) - self._at))

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        if self._keeps:
            self._read += taken
        return taken

    def line(self) -> bytes:
        """A line without its end, which is CR LF."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            if len(self._data) - self._at > _LONGEST:
                raise Malformed("a line without end")
            rest = self.rest
            self._data, self._at = rest + self._receive(), 0
        line = self._take(end + 1 - self._at)
        if not line.endswith(b"\r\n"):
            raise Malformed(f"a bare LF ends {line!r}")
        return line[:-2]

    def head(self) -> Message:
        """The head of the next message, interim or not; its line and fields alone."""
        self._read.clear()
        self._keeps = True
        start = self.line()
        if (_ANSWER if start.startswith(b"HTTP/") else _REQUEST).fullmatch(start) is None:
            raise Malformed(f"start line {start!r}")
        message = Message(start, self.fields(), raw=bytes(self._read))
        self._keeps = self._record
        return message

    def fields(self) -> Fields:
        """Field lines up to the empty one."""
        fields = []
        while line := self.line():
            match = _FIELD.fullmatch(line)
            if match is None:
                raise Malformed(f"field line {line!r}")
            fields.append((match[1], match[2]))
        return fields

    def pieces(self, message: Message, method: bytes = b"", *, until_close: bool = True) -> Iterator[bytes]:
        """The body of a message whose head has been read, as it comes; `message` gets its trailers in the end.

        `method` is that of the request which an answer belongs to. An answer without a length goes on to the end of
        the connection, or with `until_close` false has no body.
        """
        answers = message.start.startswith(b"HTTP/")
        lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed(f"framed twice: {message.raw!r}")
        if answers and (method == b"HEAD" or message.status < 200 or message.status in (204, 304)):
            return
        if codings:
            if codings != [b"chunked"]:
                raise Malformed(f"coding {codings!r}")
            yield from self._chunks(message)
        elif lengths:
            if not lengths[0].isdigit():
                raise Malformed(f"length {lengths!r}")
            yield from self._exactly(int(lengths[0]))
        elif answers and until_close:
            while True:
                yield self.some()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.some(size)
            size -= len(piece)
            yield piece

    def _chunks(self, message: Message) -> Iterator[bytes]:
        while True:
            line = self.line()
            if _SIZE.fullmatch(line) is None:
                raise Malformed(f"chunk line {line!r}")
            size = int(line, 16)
            if not size:
                message.trailers = self.fields()
                break
            yield from self._exactly(size)
            if self.line():
                raise Malformed("a chunk without an end")

    def message(self, method: bytes = b"", *, until_close: bool = True) -> Message:
        """The next message, whole, the interim answers apart that stand before it. Raises what `receive` raises."""
        message = self.head()
        message.body = b"".join(self.pieces(message, method, until_close=until_close))
        message.ended = "complete"
        if self._record:
            message.raw = bytes(self._read)
        return message

    def answer(self, method: bytes = b"GET") -> Message:
        """The final answer to a request of this method, with the interim ones, as far as it comes."""
        interim: list[Message] = []
        answer = Message()
        body = bytearray()
        try:
            while (head := self.head()).status < 200:
                interim.append(head)
            answer = head
            for piece in self.pieces(answer, method):
                body += piece
            answer.ended = "complete"
        except Ended as end:
            answer.ended = _how(answer, end.how)
        answer.body, answer.interim = bytes(body), interim
        if self._record:
            answer.raw = bytes(self._read)
        return answer


def _how(answer: Message, how: str) -> str:
    """How an answer ended that the end of the connection has ended in this way."""
    if how != "closed":
        return how
    if not answer.start:
        return "nothing"
    framed = answer.values(b"content-length") or answer.values(b"transfer-encoding")
    return "cut" if framed else "complete"


# -- bytes in memory


def read_message(data: bytes, *, to_head: bool = False) -> tuple[Message, bytes]:
    """The first message in `data`, and what comes after it. IncompleteError where the message has not ended; an
    answer must state its length."""
    pieces = [data]

    def receive() -> bytes:
        if not pieces:
            raise IncompleteError(f"cut short: {data!r}")
        return pieces.pop()

    reader = Reader(receive, record=True)
    message = reader.message(b"HEAD" if to_head else b"", until_close=False)
    return message, reader.rest or b"".join(pieces)


def read_messages(data: bytes, methods: Iterable[bytes] = ()) -> list[Message]:
    """Every message in `data`; `methods` are those of the requests that the answers belong to."""
    messages = []
    pending = list(methods)
    while data:
        method = pending.pop(0) if pending else b"GET"
        message, data = read_message(data, to_head=method == b"HEAD")
        messages.append(message)
        if message.start.startswith(b"HTTP/") and message.status < 200:
            pending.insert(0, method)
    return messages


def is_whole(data: bytes) -> bool:
    """Whether `data` begins with a complete message."""
    try:
        read_message(data)
    except IncompleteError:
        return False
    return True
