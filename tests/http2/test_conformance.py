"""RFC 9113 and RFC 7541 as rules of a server, each played on a connection of its own.

A case is what the client sends and what has to come of it; its name begins with the section. Everything is played
before a path that a service answers, and before a host that is no tenant's, where the gateway answers at once,
perhaps before the frames that break the rule have come. `Http2Client` judges every frame that the server sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    KEPT,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NEVER,
    PING,
    PLAIN,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Fields,
    block,
    continuation,
    data,
    frame,
    frames_of,
    goaway,
    headers,
    indexed,
    literal,
    ping,
    priority,
    reset,
    settings,
    table_size,
    weight,
    window_update,
)
from tests.kit.recording import HOST, running


@dataclass
class Wait:
    """A step that reads: what stands before it is sent first."""

    until: Callable[[Http2Client], object]


Step = bytes | Wait | Callable[[Http2Client], bytes]


@dataclass
class Target:
    """Where the requests of a case go."""

    authority: bytes
    path: bytes
    status: int


SERVED = Target(HOST, b"/v1/users", 200)
REFUSED = Target(b"127.0.0.1:443", b"/", 421)


# -- what is sent


def fields(client: Http2Client, method: bytes = b"GET") -> Fields:
    """The four pseudo-header fields of a request."""
    target = client.target
    assert isinstance(target, Target)
    return [(b":method", method), (b":scheme", b"https"), (b":path", target.path), (b":authority", target.authority)]


def raw(
    before: bytes = b"",
    after: bytes = b"",
    stream: int = 1,
    method: bytes = b"GET",
    more: Fields | None = None,
    **how,
) -> Step:
    """HEADERS with a request, these bytes around its field block, and `more` fields at its end."""
    return lambda client: headers(stream, before + block(fields(client, method) + (more or [])) + after, **how)


def get(*more: tuple[bytes, bytes], stream: int = 1, **how) -> Step:
    """HEADERS with a whole GET."""
    return raw(stream=stream, more=list(more), **how)


def post(*more: tuple[bytes, bytes], stream: int = 1, end: bool = False, **how) -> Step:
    """HEADERS with a POST, whose body follows."""
    return raw(stream=stream, method=b"POST", more=list(more), end=end, **how)


def changed(change: Callable[[Fields], Fields]) -> Step:
    """HEADERS with a GET whose pseudo-header fields went through `change`."""
    return lambda client: headers(1, block(change(fields(client))))


def without(name: bytes) -> Step:
    """HEADERS with a GET that lacks a pseudo-header field."""
    return changed(lambda all_fields: [each for each in all_fields if each[0] != name])


def twice(name: bytes) -> Step:
    """HEADERS with a GET that has a pseudo-header field twice."""
    return changed(lambda all_fields: all_fields + [each for each in all_fields if each[0] == name])


def split(*places: int) -> Step:
    """A GET whose field block is cut at these places: HEADERS and CONTINUATIONs."""

    def make(client: Http2Client) -> bytes:
        whole = block(fields(client))
        parts = [whole[start:end] for start, end in zip((0, *places), (*places, len(whole)), strict=True)]
        first = headers(1, parts[0], done=False)
        last = len(parts) - 1
        return first + b"".join(
            continuation(1, part, done=number == last) for number, part in enumerate(parts) if number
        )

    return make


def ends(client: Http2Client) -> None:
    """The whole answer on stream 1 comes."""
    assert client.answer().complete, client.described()


ANSWERED = Wait(ends)


def change(*values: tuple[int, int]) -> Step:
    """Settings that are in force when the next step begins."""
    return Wait(lambda client: client.change(*values))


LONG = block([(b"x-dummy0", b"x" * 4000)])
NO_WINDOW = settings((INITIAL_WINDOW_SIZE, 0))
UNKNOWN = frame(0x16, 0, 0, bytes(8))


# -- what has to come of it

Outcome = Callable[[Http2Client], None]


def breaks(*codes: int) -> Outcome:
    """A connection error."""
    return lambda client: client.breaks(*codes)


def refuses(*codes: int, stream: int = 1) -> Outcome:
    """A stream error, or a connection error."""
    return lambda client: client.refuses(stream, *codes)


def serves(client: Http2Client) -> None:
    """The request on stream 1 has its answer, and the connection lives."""
    answer = client.answer()
    assert (answer.status, answer.complete) == (client.target.status, True)
    assert answer.body
    client.lives()


def lives(client: Http2Client) -> None:
    """Nothing has happened to the connection."""
    client.lives()


def lives_or_closes(client: Http2Client) -> None:
    """The connection lives, or the server ends it in order."""
    client.send(ping(b"are you?"))
    while (came := client.next()) is not None and (came.kind, came.flags) != (PING, ACK):
        pass
    assert not any(client.goaways), client.described()


def body_begins_with(size: int) -> Outcome:
    """The first DATA of the answer on stream 1 has so many bytes, and no more follow."""

    def check(client: Http2Client) -> None:
        client.data(1, size)
        client.lives()
        assert len(client.answers[1].body) == size
        assert not client.answers[1].complete

    return check


def next_byte(client: Http2Client) -> None:
    """One byte more comes, beyond the three there are."""
    client.data(1, 4)
    client.lives()
    assert len(client.answers[1].body) == 4


def resets_with(code: int) -> Outcome:
    """A stream error and nothing else, after which the connection lives."""

    def check(client: Http2Client) -> None:
        client.refuses(1, code)
        assert client.answers[1].reset == code, client.described()
        client.lives()

    return check


def says(code: int) -> Outcome:
    """GOAWAY with this code, and the end of the connection."""

    def check(client: Http2Client) -> None:
        client.breaks(code)
        assert client.goaways == [code]

    return check


CASES: list = []


def section(name: str, *cases: tuple) -> None:
    """Cases of a section: what each is about, what is sent, and what has to come of it."""
    for what, *steps, outcome in cases:
        CASES.append(pytest.param(steps, outcome, id=f"{name} {what}"))


# -- RFC 9113: starting, frames

section(
    "3.4 preface",
    ("is answered by SETTINGS and their acknowledgement", lives),
)
section(
    "4.1 frame format",
    ("a frame of an unknown kind is ignored", UNKNOWN, lives),
    ("an unknown frame on a stream is ignored", get(), frame(0xBB, 0xFF, 1, b"x" * 99), serves),
    ("flags without a meaning are ignored", frame(PING, 0x16, 0, bytes(8)), ping(), lives),
    ("the reserved bit is ignored", frame(PING, 0, 1 << 31, bytes(8)), ping(), lives),
)
section(
    "4.2 frame size",
    ("DATA of 2^14 bytes is taken", post(), data(1, b"x" * DEFAULT_FRAME, end=True), serves),
    (
        "a larger DATA is an error",
        post(),
        data(1, b"x" * (DEFAULT_FRAME + 1), end=True),
        refuses(FRAME_SIZE_ERROR),
    ),
    ("a larger HEADERS breaks the connection", raw(after=LONG * 5), breaks(FRAME_SIZE_ERROR)),
    ("a larger frame of an unknown kind is an error", frame(0xBB, 0, 0, bytes(1 << 20)), breaks(FRAME_SIZE_ERROR)),
    (
        "the head alone of a SETTINGS of a wrong size will do",
        frame(SETTINGS, 0, 0, bytes(8), length=9),
        breaks(FRAME_SIZE_ERROR),
    ),
    ("the head alone of a DATA too large will do", frame(DATA, 0, 1, length=1 << 23), breaks(FRAME_SIZE_ERROR)),
)
section(
    "4.3 field blocks",
    ("one that does not decode", headers(1, b"\x40"), breaks(COMPRESSION_ERROR)),
    (
        "PRIORITY amid one",
        raw(end=False, done=False),
        priority(1, weight()),
        continuation(1, LONG),
        breaks(PROTOCOL_ERROR),
    ),
    (
        "HEADERS of another stream amid one",
        raw(end=False, done=False),
        get(stream=3),
        continuation(1, LONG),
        breaks(PROTOCOL_ERROR),
    ),
    ("the decoder sees blocks of refused streams", raw(after=literal(b"x-a", b"b", KEPT), more=[(b"A", b"b")]),
     raw(after=indexed(62), stream=3), lambda client: assert_status(client, 3)),
)  # fmt: skip


def assert_status(client: Http2Client, stream: int) -> None:
    """A stream has its usual answer."""
    assert client.answer(stream).status == client.target.status


# -- streams

AFTER_RESET = (raw(end=False), reset(1))
section(
    "5.1 idle",
    ("DATA", data(1, b"test", end=True), breaks(PROTOCOL_ERROR)),
    ("RST_STREAM", reset(1), breaks(PROTOCOL_ERROR)),
    ("WINDOW_UPDATE", window_update(1, 100), breaks(PROTOCOL_ERROR)),
    ("CONTINUATION", lambda client: continuation(1, block(fields(client))), breaks(PROTOCOL_ERROR)),
    ("PRIORITY is allowed", priority(1, weight()), lives),
    ("DATA beyond the highest", get(stream=1), data(3, b"test"), breaks(PROTOCOL_ERROR)),
    ("WINDOW_UPDATE of the server's own kind", window_update(2, 1), breaks(PROTOCOL_ERROR)),
    ("RST_STREAM of the server's own kind", reset(2), breaks(PROTOCOL_ERROR)),
    ("DATA of the server's own kind below the highest", get(stream=3), data(2, b"test"), breaks(PROTOCOL_ERROR)),
    ("RST_STREAM of the server's own kind below the highest", get(stream=3), reset(2), breaks(PROTOCOL_ERROR)),
)
section(
    "5.1 half-closed",
    ("DATA", get(), data(1, b"test", end=True), refuses(STREAM_CLOSED)),
    ("HEADERS", get(), get(), refuses(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("CONTINUATION", get(), continuation(1, LONG), refuses(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("WINDOW_UPDATE is allowed", NO_WINDOW, get(), window_update(1, 1), body_begins_with(1)),
    ("PRIORITY is allowed", NO_WINDOW, get(), priority(1, weight()), window_update(1, 1), body_begins_with(1)),
    ("RST_STREAM is allowed", get(), reset(1), lives),
    ("empty DATA", get(), data(1, end=True), refuses(STREAM_CLOSED)),
)  # fmt: skip
section(
    "5.1 closed by RST_STREAM",
    ("DATA", *AFTER_RESET, data(1, b"test", end=True), refuses(STREAM_CLOSED)),
    ("HEADERS", *AFTER_RESET, get(), refuses(STREAM_CLOSED)),
    ("CONTINUATION", *AFTER_RESET, continuation(1, LONG), refuses(STREAM_CLOSED, PROTOCOL_ERROR)),
)
section(
    "5.1 closed by END_STREAM",
    ("DATA", get(), ANSWERED, data(1, b"test", end=True), refuses(STREAM_CLOSED)),
    ("HEADERS", get(), ANSWERED, get(), breaks(STREAM_CLOSED)),
    ("CONTINUATION", get(), ANSWERED, continuation(1, LONG), breaks(STREAM_CLOSED, PROTOCOL_ERROR)),
    ("PRIORITY is allowed", get(), ANSWERED, priority(1, weight()), lives),
    ("WINDOW_UPDATE soon after is allowed", get(), ANSWERED, window_update(1, 1), lives),
    ("RST_STREAM soon after is allowed", get(), ANSWERED, reset(1), lives),
)
section(
    "5.1.1 identifiers",
    ("an even one", get(stream=2), breaks(PROTOCOL_ERROR)),
    ("one smaller than the last", get(stream=5), get(stream=3), breaks(PROTOCOL_ERROR, STREAM_CLOSED)),
    (
        "HEADERS on a half-closed stream",
        get(stream=5),
        get(stream=5),
        refuses(STREAM_CLOSED, PROTOCOL_ERROR, stream=5),
    ),
    ("the largest is taken", get(stream=LARGEST_WINDOW), lambda client: assert_status(client, LARGEST_WINDOW)),
)


def beyond_concurrency(client: Http2Client) -> bytes:
    """One stream more than the server allows, while none can end."""
    streams = range(1, 2 * client.settings[MAX_CONCURRENT_STREAMS] + 3, 2)
    return b"".join(headers(stream, block(fields(client))) for stream in streams)


def one_refused(client: Http2Client) -> None:
    """The last stream is refused, at the latest."""
    client.refuses(2 * client.settings[MAX_CONCURRENT_STREAMS] + 1, PROTOCOL_ERROR, REFUSED_STREAM)


section(
    "5.1.2 concurrency", ("one stream too many", change((INITIAL_WINDOW_SIZE, 0)), beyond_concurrency, one_refused)
)
section(
    "5.3 dependencies of RFC 7540",
    ("HEADERS on itself", raw(priority=weight(1)), refuses(PROTOCOL_ERROR)),
    ("PRIORITY on itself", priority(1, weight(1)), refuses(PROTOCOL_ERROR)),
)
section(
    "5.4.1 connection errors",
    ("the connection closes", frame(PING, 0, 3, bytes(8)), breaks(PROTOCOL_ERROR)),
    ("GOAWAY tells why", frame(PING, 0, 3, bytes(8)), says(PROTOCOL_ERROR)),
)
section(
    "5.5 extensions",
    ("an unknown frame is ignored", UNKNOWN, ping(), lives),
    ("an unknown frame amid a field block", raw(done=False), UNKNOWN, breaks(PROTOCOL_ERROR)),
)

# -- kinds of frames

section(
    "6.1 DATA",
    ("is taken", post(), data(1, b"test", end=True), serves),
    ("several are taken", post(), data(1, b"test"), data(1, b"test", end=True), serves),
    ("padding is taken", post(), data(1, b"test", end=True, pad=6), serves),
    ("padding alone is taken", post(), data(1, b"", pad=255), data(1, b"", end=True, pad=0), serves),
    ("on the connection", data(0, b"test", end=True), breaks(PROTOCOL_ERROR)),
    ("on a stream that is not open", post(end=True), data(1, b"test", end=True), refuses(STREAM_CLOSED)),
    (
        "more padding than there is",
        post((b"content-length", b"4")),
        frame(DATA, 0x9, 1, b"\x06Test"),
        breaks(PROTOCOL_ERROR),
    ),
    ("padding as long as the payload", post(), frame(DATA, 0x9, 1, b"\x05Test"), breaks(PROTOCOL_ERROR)),
    ("padded without a pad length", post(), frame(DATA, 0x9, 1, b""), breaks(PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
)
section(
    "6.2 HEADERS",
    ("is taken", get(), serves),
    ("padding is taken", get(pad=8), serves),
    ("priority is taken", get(priority=weight()), serves),
    ("padding and priority are taken", get(pad=255, priority=weight(exclusive=True)), serves),
    (
        "PRIORITY instead of CONTINUATION",
        raw(end=False, done=False),
        priority(1, weight()),
        continuation(1, LONG),
        breaks(PROTOCOL_ERROR),
    ),
    (
        "HEADERS of another stream instead of CONTINUATION",
        raw(end=False, done=False),
        get(stream=3),
        continuation(1, LONG),
        breaks(PROTOCOL_ERROR),
    ),
    ("on the connection", get(stream=0), breaks(PROTOCOL_ERROR)),
    (
        "more padding than there is",
        lambda client: headers(1, block(fields(client)), pad=0, claimed=len(block(fields(client))) + 2),
        breaks(PROTOCOL_ERROR),
    ),
    ("padded without a pad length", frame(HEADERS, 0xD, 1, b""), breaks(PROTOCOL_ERROR, FRAME_SIZE_ERROR)),
    (
        "with too little for its priority",
        frame(HEADERS, 0x25, 1, b"\0\0\0"),
        breaks(PROTOCOL_ERROR, FRAME_SIZE_ERROR),
    ),
)
section(
    "6.3 PRIORITY",
    ("weight 1", priority(1, weight(value=0)), get(), serves),
    ("weight 256", priority(1, weight(value=255)), get(), serves),
    ("a dependency", priority(3, weight(1)), get(), serves),
    ("exclusive", priority(1, weight(exclusive=True)), get(), serves),
    ("of an idle stream beyond", priority(3, weight()), get(), serves),
    ("on the connection", priority(0, weight()), breaks(PROTOCOL_ERROR)),
    ("of another length", get(), frame(PRIORITY, 0, 1, b"\x80\0\0\x01"), refuses(FRAME_SIZE_ERROR)),
    ("of another length, idle", frame(PRIORITY, 0, 1, b"\x80\0\0\x01"), breaks(FRAME_SIZE_ERROR)),
)
section(
    "6.4 RST_STREAM",
    ("is taken", post(), reset(1, CANCEL), lives),
    ("on the connection", reset(0), breaks(PROTOCOL_ERROR)),
    ("of an idle stream", reset(1), breaks(PROTOCOL_ERROR)),
    ("of another length", get(), frame(RST_STREAM, 0, 1, bytes(3)), breaks(FRAME_SIZE_ERROR)),
)
section(
    "6.5 SETTINGS",
    ("are taken", settings((MAX_CONCURRENT_STREAMS, 100)), lives),
    ("none are taken", settings(), lives),
    ("acknowledged with a payload", frame(SETTINGS, ACK, 0, b"\0"), breaks(FRAME_SIZE_ERROR)),
    ("of a stream", frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64"), breaks(PROTOCOL_ERROR)),
    ("of a broken length", frame(SETTINGS, 0, 0, b"\0\x03\0"), breaks(FRAME_SIZE_ERROR, PROTOCOL_ERROR)),
)
section(
    "6.5.2 settings",
    ("ENABLE_PUSH neither 0 nor 1", settings((ENABLE_PUSH, 2)), breaks(PROTOCOL_ERROR)),
    ("INITIAL_WINDOW_SIZE too large", settings((INITIAL_WINDOW_SIZE, 1 << 31)), breaks(FLOW_CONTROL_ERROR)),
    ("MAX_FRAME_SIZE too small", settings((MAX_FRAME_SIZE, DEFAULT_FRAME - 1)), breaks(PROTOCOL_ERROR)),
    ("MAX_FRAME_SIZE too large", settings((MAX_FRAME_SIZE, 1 << 24)), breaks(PROTOCOL_ERROR)),
    ("an unknown one is ignored", settings((0xFF, 1)), ping(), lives),
)
section(
    "6.5.3 synchronization",
    (
        "the last of several values counts",
        change((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)),
        get(),
        body_begins_with(1),
    ),
    ("are acknowledged", change((ENABLE_PUSH, 0)), lives),
    ("each is acknowledged", settings(), settings(), settings(), lambda client: client.settle()),
)
section(
    "6.6 PUSH_PROMISE",
    (
        "clients do not push",
        lambda client: frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x03" + block(fields(client))),
        breaks(PROTOCOL_ERROR),
    ),
)
section(
    "6.7 PING",
    ("is answered", ping(b"anything"), lives),
    ("an answer is not answered", ping(b"answered", ack=True), ping(), lives),
    ("of a stream", frame(PING, 0, 1, bytes(8)), breaks(PROTOCOL_ERROR)),
    ("of another length", frame(PING, 0, 0, bytes(6)), breaks(FRAME_SIZE_ERROR)),
)
section(
    "6.8 GOAWAY",
    ("is taken", goaway(debug=b"good bye"), lives_or_closes),
    ("a stream under way is answered", NO_WINDOW, get(), goaway(), window_update(1, 4096), ends),
    ("of a stream", frame(GOAWAY, 0, 1, bytes(8)), breaks(PROTOCOL_ERROR)),
    ("too short", frame(GOAWAY, 0, 0, bytes(4)), breaks(FRAME_SIZE_ERROR)),
)  # fmt: skip
section(
    "6.9 WINDOW_UPDATE",
    ("of the connection", window_update(0, 1), lives),
    ("of a stream", get(), window_update(1, 1), serves),
    ("of 0 on the connection", window_update(0, 0), breaks(PROTOCOL_ERROR)),
    ("of 0 on a stream", raw(end=False), window_update(1, 0), refuses(PROTOCOL_ERROR)),
    ("of another length", frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01"), breaks(FRAME_SIZE_ERROR)),
)
section(
    "6.9.1 windows",
    ("no byte beyond one of 1", change((INITIAL_WINDOW_SIZE, 1)), get(), body_begins_with(1)),
    (
        "the connection's beyond 2^31-1",
        window_update(0, LARGEST_WINDOW),
        window_update(0, LARGEST_WINDOW),
        says(FLOW_CONTROL_ERROR),
    ),
    (
        "a stream's beyond 2^31-1",
        raw(end=False),
        window_update(1, LARGEST_WINDOW),
        window_update(1, LARGEST_WINDOW),
        resets_with(FLOW_CONTROL_ERROR),
    ),
    ("up to 2^31-1 is right", window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW), get(), serves),
)
section(
    "6.9.2 initial window",
    (
        "a change counts for open streams",
        change((INITIAL_WINDOW_SIZE, 0)),
        get(),
        change((INITIAL_WINDOW_SIZE, 1)),
        body_begins_with(1),
    ),
    (
        "a window may become negative",
        change((INITIAL_WINDOW_SIZE, 3)),
        get(),
        Wait(lambda client: client.data(1, 3)),
        change((INITIAL_WINDOW_SIZE, 2)),
        window_update(1, 2),
        next_byte,
    ),
    ("too large", frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), breaks(FLOW_CONTROL_ERROR)),
    (
        "a change that makes a stream's too large",
        change((INITIAL_WINDOW_SIZE, 1)),
        raw(end=False),
        window_update(1, LARGEST_WINDOW - 1),
        settings((INITIAL_WINDOW_SIZE, 4096)),
        breaks(FLOW_CONTROL_ERROR),
    ),
)
section(
    "6.10 CONTINUATION",
    ("is taken", split(5), serves),
    ("two are taken", split(5, 10), serves),
    ("many are taken", split(*range(1, 20)), serves),
    ("after a whole block", raw(done=False), continuation(1, LONG, done=False), continuation(1, LONG), serves),
    (
        "DATA after it",
        post(done=False),
        continuation(1, LONG, done=False),
        data(1, b"test", end=True),
        breaks(PROTOCOL_ERROR),
    ),
    ("on the connection", raw(done=False), continuation(0, LONG), breaks(PROTOCOL_ERROR)),
    ("of another stream", raw(done=False), continuation(3, LONG), breaks(PROTOCOL_ERROR)),
    ("after END_HEADERS", get(), continuation(1, LONG), breaks(PROTOCOL_ERROR)),
    (
        "after the last CONTINUATION",
        raw(done=False),
        continuation(1, LONG),
        continuation(1, LONG),
        breaks(PROTOCOL_ERROR),
    ),
    (
        "after DATA",
        post(done=False),
        data(1, b"test", end=True),
        continuation(1, LONG, done=False),
        continuation(0, LONG),
        breaks(PROTOCOL_ERROR),
    ),
)
section(
    "7 error codes",
    ("an unknown one in GOAWAY", goaway(0xFF), lives_or_closes),
    ("an unknown one in RST_STREAM", post(), reset(1, 0xFF), ping(), lives),
)

# -- messages

section(
    "8.1 messages",
    ("GET", get(), serves),
    ("HEAD", raw(method=b"HEAD"), ends),
    ("POST", post(), data(1, b"test", end=True), serves),
    (
        "POST with trailers",
        post((b"trailer", b"x-test")),
        data(1, b"test"),
        headers(1, block([(b"x-test", b"ok")])),
        serves,
    ),
    (
        "a second HEADERS without END_STREAM",
        post(),
        data(1, b"test"),
        headers(1, block([(b"x-test", b"ok")]), end=False),
        refuses(PROTOCOL_ERROR),
    ),
)
section("8.2 fields", ("a name in upper case", get((b"X-TEST", b"ok")), refuses(PROTOCOL_ERROR)))
section(
    "8.2.2 connection fields",
    ("connection", get((b"connection", b"keep-alive")), refuses(PROTOCOL_ERROR)),
    ("te beyond trailers", get((b"trailers", b"test"), (b"te", b"trailers, deflate")), refuses(PROTOCOL_ERROR)),
    ("te: trailers is allowed", get((b"te", b"trailers")), serves),
)
section(
    "8.3 pseudo-header fields",
    ("an unknown one", get((b":test", b"ok")), refuses(PROTOCOL_ERROR)),
    ("one of answers", get((b":status", b"200")), refuses(PROTOCOL_ERROR)),
    (
        "in trailers",
        post(),
        data(1, b"test"),
        headers(1, block([(b":method", b"POST")])),
        refuses(PROTOCOL_ERROR),
    ),
    (
        "in trailers without END_STREAM",
        post(),
        data(1, b"test"),
        headers(1, block([(b":method", b"POST")]), end=False),
        refuses(PROTOCOL_ERROR),
    ),
    ("after a field", changed(lambda every: [(b"x-test", b"ok"), *every]), refuses(PROTOCOL_ERROR)),
)
section(
    "8.3.1 request pseudo-header fields",
    (
        "an empty :path",
        changed(lambda every: [every[0], every[1], (b":path", b""), every[3]]),
        refuses(PROTOCOL_ERROR),
    ),
    ("no :method", without(b":method"), refuses(PROTOCOL_ERROR)),
    ("no :scheme", without(b":scheme"), refuses(PROTOCOL_ERROR)),
    ("no :path", without(b":path"), refuses(PROTOCOL_ERROR)),
    ("no :method and no :scheme", changed(lambda every: every[2:]), refuses(PROTOCOL_ERROR)),
    ("two :method", twice(b":method"), refuses(PROTOCOL_ERROR)),
    ("two :scheme", twice(b":scheme"), refuses(PROTOCOL_ERROR)),
    ("two :path", twice(b":path"), refuses(PROTOCOL_ERROR)),
    ("two :authority", twice(b":authority"), refuses(PROTOCOL_ERROR)),
)
section(
    "8.1.1 content-length",
    ("less than DATA", post((b"content-length", b"1")), data(1, b"test", end=True), refuses(PROTOCOL_ERROR)),
    (
        "less than several DATA",
        post((b"content-length", b"1")),
        data(1, b"test"),
        data(1, b"test", end=True),
        refuses(PROTOCOL_ERROR),
    ),
    ("more than DATA", post((b"content-length", b"9")), data(1, b"test", end=True), refuses(PROTOCOL_ERROR)),
)

# -- RFC 7541

AGENT = (b"user-agent", b"client")
TEST = (b"x-test", b"client")
for kind, how in ((KEPT, "6.2.1 with indexing"), (PLAIN, "6.2.2 without indexing"), (NEVER, "6.2.3 never indexed")):
    section(
        f"HPACK {how}",
        ("an indexed name", raw(after=literal(58, AGENT[1], kind)), serves),
        ("an indexed name, Huffman", raw(after=literal(58, AGENT[1], kind, huffman=True)), serves),
        ("a known name spelt out", raw(after=literal(*AGENT, kind)), serves),
        ("a known name spelt out, Huffman", raw(after=literal(*AGENT, kind, huffman=True)), serves),
        ("a new name", raw(after=literal(*TEST, kind)), serves),
        ("a new name, Huffman", raw(after=literal(*TEST, kind, huffman=True)), serves),
    )
section(
    "HPACK 6.1 indexed fields",
    ("of the static table", raw(after=indexed(58)), serves),
    ("of the dynamic table", raw(after=literal(*TEST, KEPT) + indexed(62)), serves),
    ("index 0", raw(after=indexed(0)), breaks(COMPRESSION_ERROR)),
)
section(
    "HPACK 4.2 and 6.3 table size",
    ("an update", raw(before=table_size(0)), serves),
    ("two updates", raw(before=table_size(0) + table_size(4096)), serves),
    ("an update at the end of a block", raw(after=table_size(1)), breaks(COMPRESSION_ERROR)),
    (
        "an update beyond what the server allows",
        lambda client: headers(
            1, table_size(client.settings.get(HEADER_TABLE_SIZE, 4096) + 1) + block(fields(client))
        ),
        breaks(COMPRESSION_ERROR),
    ),
    (
        "an update evicts",
        raw(after=literal(*TEST, KEPT)),
        raw(before=table_size(0), after=indexed(62), stream=3),
        breaks(COMPRESSION_ERROR),
    ),
)
section(
    "HPACK 2.3.3 index address space",
    ("an index beyond the tables", raw(after=indexed(70)), breaks(COMPRESSION_ERROR)),
    ("a name's index beyond the tables", raw(after=literal(70, b"value")), breaks(COMPRESSION_ERROR)),
)
# x-test: test, whose value's code leaves three bits for padding
section(
    "HPACK 5.2 strings",
    ("padding of more than 7 bits", raw(after=b"\0\x06x-test\x84\x49\x50\x9f\xff"), breaks(COMPRESSION_ERROR)),
    ("padding of zeros", raw(after=b"\0\x06x-test\x83\x49\x50\x90"), breaks(COMPRESSION_ERROR)),
    ("the EOS symbol", raw(after=b"\0\x06x-test\x87\xff\xff\xff\xfd\x25\x42\x7f"), breaks(COMPRESSION_ERROR)),
    ("a string longer than the block", raw(after=b"\0\x06x-test\x7ftest"), breaks(COMPRESSION_ERROR)),
    ("a number without an end", raw(after=b"\0\x06x-test\x7f" + b"\xff" * 99), breaks(COMPRESSION_ERROR)),
)


# -- how they are played


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gateway"), secure=True) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared):
    """The shared gateway, which has logged nothing alarming afterwards."""
    yield shared
    shared.assert_quiet()


def play(client: Http2Client, steps: list[Step], send: Callable[[Http2Client, list[bytes]], None]) -> None:
    """Do the steps; those without a wait between them go out by `send`."""
    client.start()
    waiting: list[bytes] = []
    for step in steps:
        if isinstance(step, Wait):
            send(client, waiting)
            waiting = []
            step.until(client)
        else:
            waiting.append(step if isinstance(step, bytes) else step(client))
    send(client, waiting)


def in_one_go(client: Http2Client, pieces: list[bytes]) -> None:
    """The server reads all of it at once."""
    client.send(*pieces)


def one_by_one(client: Http2Client, pieces: list[bytes]) -> None:
    """Each in a record of its own; the server reads it as it pleases."""
    for piece in pieces:
        client.send(piece)


def after_the_answer(client: Http2Client, pieces: list[bytes]) -> None:
    """What follows a head goes out when the answer to it has begun."""
    for piece in pieces:
        client.send(piece)
        if any(sent.kind == HEADERS and sent.flags & END_HEADERS and sent.stream == 1 for sent in frames_of(piece)):
            answer = client.answers[1]
            while not answer.status and not answer.over and not client.goaways and client.next() is not None:
                pass


@pytest.mark.parametrize(
    ("target", "send"),
    [(SERVED, in_one_go), (SERVED, one_by_one), (REFUSED, in_one_go), (REFUSED, after_the_answer)],
    ids=["served", "served one by one", "refused", "refused before the rest"],
)
@pytest.mark.parametrize(("steps", "outcome"), CASES)
def test_rule(gateway, target, send, steps, outcome):
    with Http2Client.connect(gateway.port, HOST, target=target) as client:
        play(client, steps, send)
        outcome(client)


@pytest.mark.parametrize(
    "sent",
    [
        b"INVALID CONNECTION PREFACE\r\n\r\n",
        PREFACE[:-1] + b"x",
        b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n",
        PREFACE + ping(),
        PREFACE + goaway(),
        PREFACE + settings()[:3] + b"\x04\x01\0\0\0\0",
    ],
    ids=["garbage", "another last byte", "HTTP/1.1", "PING first", "GOAWAY first", "an acknowledgement first"],
)
def test_preface_that_is_none(gateway, sent):
    """3.4: the connection ends."""
    with Http2Client.connect(gateway.port, HOST) as client:
        client.send_raw(sent)
        client.breaks(PROTOCOL_ERROR)


def test_preface_in_pieces(gateway):
    """3.4: bytes may come one by one."""
    with Http2Client.connect(gateway.port, HOST, target=SERVED) as client:
        whole = PREFACE + settings() + headers(1, block(fields(client)))
        client.remember(whole.removeprefix(PREFACE))
        for position in range(len(whole)):
            assert client.send_raw(whole[position : position + 1])
        client.settle()
        serves(client)
