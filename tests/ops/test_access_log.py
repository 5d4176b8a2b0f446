"""The access log: its format, its buffer, and a target that fails, sticks or is rotated away."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.ops.access_lines import LONGEST_LINE, CombinedLines, JsonLines
from koder_gateway.ops.access_log import AccessLog, AccessLogError, LogTarget, open_target

HEAD = {
    "host": b"acme.example",
    "method": b"GET",
    "path": b"/v1/users/7",
    "user_agent": b"curl/8.0",
    "minor": 1,
    "http2": False,
    "traced": False,
    "trace_id": b"",
    "raw": b"",
    "shown": b"",
}
EXCHANGE = {
    "request_id": b"0123456789abcdef",
    "tenant": b"acme",
    "peer": b"192.0.2.1",
    "route": b"/v1/users",
    "service": "identity",
    "status": 200,
    "code": "",
    "bytes_in": 12,
    "bytes_out": 512,
    "started": 100.0,
    "sent_at": 100.00025,
    "answered_at": 100.001,
    "retries": 0,
    "trace": b"0af7651916cd43dd8448eb211c80319c",
}
CALL = {"limit": "", "now": 1_763_921_283.1236, "ended": 100.0012345678}


@pytest.fixture
def events():
    """What is logged, as (level, text)."""
    seen = []

    def observe(event):
        if event.get("log_namespace") == "koder_gateway.ops.access_log":
            seen.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


class Target:
    """Takes what `room` allows (None: everything), or fails with `error`."""

    def __init__(self):
        self.taken = b""
        self.calls = 0
        self.room = None
        self.error = None

    def __call__(self, data):
        self.calls += 1
        if self.error is not None:
            raise self.error
        part = data if self.room is None else data[: self.room]
        self.taken += part
        if self.room is not None:
            self.room -= len(part)
        return len(part)

    @property
    def lines(self):
        return [json.loads(line) for line in self.taken.splitlines()]


def add(log, tls=b"TLSv1.3", **changes):
    """Have `log` write the line of an exchange; `changes` are members of it, of its head, or of the call."""
    head, exchange, call = (
        {name: changes.pop(name, value) for name, value in part.items()} for part in (HEAD, EXCHANGE, CALL)
    )
    assert not changes
    # The head has a `trace_id` too, that of the client's own trace.
    exchange["trace_id"] = exchange.pop("trace")
    made = SimpleNamespace(**exchange, head=SimpleNamespace(**head), context=SimpleNamespace(tls=tls))
    log.line(made, **call)


def test_a_line_has_every_field_in_its_order():
    out = []
    log = AccessLog(out.append, JsonLines())
    add(log)
    assert out == []
    log.flush()
    (line,) = out
    assert line == (
        b'{"time":"2025-11-23T18:08:03.124Z","request_id":"0123456789abcdef","tenant":"acme",'
        b'"client":"192.0.2.1","tls":"TLSv1.3","host":"acme.example","method":"GET","path":"/v1/users/7",'
        b'"protocol":"HTTP/1.1","user_agent":"curl/8.0","route":"/v1/users","service":"identity",'
        b'"status":200,"code":"","bytes_in":12,"bytes_out":512,"duration":0.001235,'
        b'"trace_id":"0af7651916cd43dd8448eb211c80319c","ttfb":0.001000,"upstream_time":0.000985,'
        b'"retries":0,"limit":"","worker":0,"v":1}\n'
    )
    log.flush()
    assert len(out) == 1
    assert (log.lines, log.dropped) == (1, 0)


@pytest.mark.parametrize(
    ("now", "time"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (59.9996, "1970-01-01T00:01:00.000Z"),
        (951_782_400.001, "2000-02-29T00:00:00.001Z"),
    ],
)
def test_the_time_is_utc_to_the_millisecond(now, time):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, now=12345.0)
    add(log, now=now)
    log.flush()
    assert target.lines[1]["time"] == time


def test_a_query_is_never_written():
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, path=b"/oauth/v2/authorize?code=secret&state=x?y")
    log.flush()
    assert target.lines[0]["path"] == "/oauth/v2/authorize"
    assert b"secret" not in target.taken


@given(path=st.binary().filter(lambda path: not set(path) & set(b"?#@;%")), method=st.binary(), agent=st.binary())
def test_any_bytes_make_one_line_of_json(path, method, agent):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, path=path, method=method, user_agent=agent)
    log.flush()
    assert target.taken.count(b"\n") == 1
    line = json.loads(target.taken)
    assert line["path"].encode("latin-1") == path
    assert line["method"].encode("latin-1") == method
    assert line["user_agent"].encode("latin-1") == agent


def test_lines_are_handed_over_when_there_are_many():
    target = Target()
    log = AccessLog(target, JsonLines(), limit=1000)
    for number in range(50):
        add(log, bytes_in=number)
    assert 1 < target.calls < 50
    log.flush()
    assert [line["bytes_in"] for line in target.lines] == list(range(50))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("closed file")])
def test_a_failing_target_loses_lines_and_says_so_once(events, error):
    target = Target()
    target.error = error
    log = AccessLog(target, JsonLines(), limit=1000)
    for _ in range(100):
        add(log)
    log.flush()
    assert log.dropped == 100
    assert [level for level, _ in events] == ["error"]
    assert str(error) in events[0][1]

    target.error = None
    add(log, bytes_in=99)
    log.flush()
    assert [line["bytes_in"] for line in target.lines] == [99]
    assert log.dropped == 100
    assert [level for level, _ in events] == ["error", "warn"]
    assert "lines lost: 100" in events[1][1]

    target.error = error
    add(log)
    log.flush()
    target.error = None
    add(log)
    log.flush()
    assert [level for level, _ in events] == ["error", "warn", "error", "warn"]
    assert events[3][1].endswith("lines lost: 1")


def test_a_stuck_target_bounds_memory_and_gets_what_was_kept(events):
    target = Target()
    target.room = 0
    log = AccessLog(target, JsonLines(), limit=1000)
    for number in range(1000):
        add(log, bytes_in=number)
    tried = target.calls
    assert tried < 10
    assert events == []
    kept = 1000 - log.dropped
    assert 0 < kept < 30

    log.flush()
    assert log.dropped == 1000 - kept
    target.room = None
    log.flush()
    assert [line["bytes_in"] for line in target.lines] == list(range(kept))
    assert events == [("warn", f"the access log is written again; lines lost: {1000 - kept}")]
    add(log, bytes_in=-1)
    log.flush()
    assert target.lines[-1]["bytes_in"] == -1


def test_a_line_that_was_cut_is_completed():
    target = Target()
    target.room = 100
    log = AccessLog(target, JsonLines())
    add(log, bytes_in=1)
    log.flush()
    assert len(target.taken) == 100
    target.room = None
    add(log, bytes_in=2)
    log.flush()
    assert [line["bytes_in"] for line in target.lines] == [1, 2]
    assert log.dropped == 0


def test_a_line_whose_rest_is_lost_does_not_spoil_the_next():
    target = Target()
    target.room = 100
    log = AccessLog(target, JsonLines())
    add(log, bytes_in=1)
    log.flush()
    target.error = OSError(errno.ENOSPC, "No space left on device")
    log.flush()
    target.error, target.room = None, 50
    add(log, bytes_in=2)
    log.flush()
    target.room = None
    add(log, bytes_in=3)
    log.flush()
    torn, *whole = target.taken.splitlines()
    assert len(torn) == 100
    assert [json.loads(line)["bytes_in"] for line in whole] == [2, 3]
    assert log.dropped == 1


@given(st.lists(st.integers(0, 700), max_size=40))
def test_whatever_is_taken_at_a_time_no_line_is_lost_or_changed(rooms):
    target = Target()
    log = AccessLog(target, JsonLines(), limit=1 << 20)
    for number, room in enumerate(rooms):
        target.room = room
        add(log, bytes_in=number)
        log.flush()
    target.room = None
    add(log, bytes_in=-1)
    log.flush()
    assert [line["bytes_in"] for line in target.lines] == [*range(len(rooms)), -1]


def test_a_file_is_appended_to_and_reopened(tmp_path):
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    target = open_target(str(path))
    assert target(b"one\n") == 4
    path.rename(tmp_path / "access.log.1")
    assert target(b"two\n") == 4
    target.reopen()
    assert target(b"three\n") == 6
    target.close()
    assert (tmp_path / "access.log.1").read_bytes() == b"before\none\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_file_that_cannot_be_reopened_stays_in_use(tmp_path, events):
    folder = tmp_path / "logs"
    folder.mkdir()
    target = open_target(str(folder / "access.log"))
    folder.rename(tmp_path / "moved")
    target.reopen()
    assert target(b"still\n") == 6
    target.close()
    assert (tmp_path / "moved" / "access.log").read_bytes() == b"still\n"
    assert events[0][0] == "error"
    assert str(folder / "access.log") in events[0][1]


def test_a_file_that_cannot_be_opened_is_one_clear_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, words in (
        ("none/access.log", "no such file"),
        ("", "is a directory"),
        ("fifo", "no such device"),
    ):
        path = os.path.join(tmp_path, name)
        with pytest.raises(AccessLogError) as caught:
            open_target(path)
        assert str(caught.value).startswith(f"{path}: the access log cannot be opened: {words}")
        assert "\n" not in str(caught.value)


@pytest.fixture
def pipe():
    """The reading end, as a file, and the writing end's descriptor."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as file:
        yield file, writer
    os.close(writer)


def test_a_full_pipe_is_not_waited_for_and_takes_the_rest_later(pipe):
    reader, writer = pipe
    target = LogTarget(writer)
    log = AccessLog(target, JsonLines(), limit=1 << 20)
    for number in range(1000):
        add(log, bytes_in=number)
    log.flush()
    heard = b""
    while heard.count(b"\n") < 1000:
        heard += reader.read(1 << 16)
        log.flush()
    assert [json.loads(line)["bytes_in"] for line in heard.splitlines()] == list(range(1000))
    target.close()
    os.fstat(writer)


def test_a_pipe_whose_reader_is_gone_loses_lines(pipe, events):
    reader, writer = pipe
    reader.close()
    log = AccessLog(LogTarget(writer), JsonLines())
    add(log)
    log.flush()
    assert log.dropped == 1
    assert "Broken pipe" in events[0][1]


def test_the_dash_is_the_standard_output(capfd):
    target = open_target("-")
    assert target(b"hello\n") == 6
    target.reopen()
    target.close()
    assert target(b"again\n") == 6
    assert capfd.readouterr().out == "hello\nagain\n"


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (b"/a#token=secret", "/a"),
        (b"http://user:secret@acme.example/a@b", "http://acme.example/a@b"),
        (b"user:secret@acme.example:443", "acme.example:443"),
        (b"/users/a@b.example", "/users/a@b.example"),
        (b"http://acme.example/@", "http://acme.example/@"),
        (b"/v1/users/http://bob:secret@h/", "/v1/users/http://h/"),
        (b"/v1/users/https://secret@h/x", "/v1/users/https://h/x"),
        (b"//bob:secret@x/v1/users", "//x/v1/users"),
        (b"//bob:se@secret@x/v1", "//x/v1"),
        (b"http:/bob:secret@x/", "http:/x/"),
        (b"http:bob:secret@x/", "x/"),
        (b"http:\\\\bob:secret@x/", "x/"),
        (b"/bob:secret%40x/a@b", "/x/a@b"),
        (b"/bob%3asecret%40x", "/x"),
        (b"/http%3A%2F%2Fbob:secret@x/y", "/x/y"),
        (b"/a//b:secret@c//d:secret@e", "/a//c//e"),
        (b"/v1/users/bob%40acme.example", "/v1/users/bob%40acme.example"),
        (b"/v1/users/bob@acme.example:verify", "/v1/users/bob@acme.example:verify"),
        (b"/v1/users/urn:koder:7", "/v1/users/urn:koder:7"),
    ],
)
def test_what_may_be_a_credential_is_never_written(path, written):
    target = Target()
    log = AccessLog(target, JsonLines())
    for host in (b"user:secret@acme.example", b"user:secret%40acme.example", b"acme.example"):
        add(log, path=path, host=host)
    log.flush()
    assert [line["path"] for line in target.lines] == [written] * 3
    assert [line["host"] for line in target.lines] == ["acme.example"] * 3
    assert b"secret" not in target.taken


@given(text=st.lists(st.sampled_from([b"/", b":", b"@", b"%40", b"%3A", b"a", b"b", b"#"])).map(b"".join))
def test_no_user_with_a_password_is_written(text):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, path=text, host=text.replace(b"/", b""))
    log.flush()
    (line,) = target.lines
    for segment in line["path"].split("/"):
        assert not re.search("(:|%3A).*(@|%40)", segment)
    assert not re.search("@|%40", line["host"])


@given(text=st.binary())
def test_no_control_reaches_a_terminal(text):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, path=text, method=text, host=text)
    log.flush()
    line = target.taken.decode().removesuffix("\n")
    assert not [character for character in line if ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0]


# What a client chooses, whose length it chooses too.

MARK = re.compile(r" \(cut, ([0-9]+) bytes\)$")


@pytest.mark.parametrize("field", ["path", "host", "method"])
@pytest.mark.parametrize(
    ("byte", "most"), [(b"a", 1024), (b'"', 768), (b"\xff", 768), (b"\x1b", 256), (b"\x9b", 256)]
)
@pytest.mark.parametrize("size", [256, 257, 768, 769, 1024, 1025, 60_000])
def test_a_field_of_any_length_is_a_bounded_part_of_a_line(field, byte, most, size):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, **{field: byte * size})
    log.flush()
    (line,) = target.lines
    begun, mark, length = MARK.sub("", line[field]), MARK.search(line[field]), size
    assert begun.encode("latin-1") == byte * min(size, most)
    assert (mark is None) is (size <= most)
    assert mark is None or int(mark[1]) == length
    assert len(target.taken) < 600 + 1536 + 30
    assert list(line) == list(json.loads(reference()))


def reference():
    out = []
    log = AccessLog(out.append, JsonLines())
    add(log)
    log.flush()
    return out[0]


def test_fields_that_are_long_together_are_written_whole():
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, path=b"/" + b"p" * 1000, host=b"h" * 1000)
    log.flush()
    (line,) = target.lines
    assert (line["path"], line["host"]) == ("/" + "p" * 1000, "h" * 1000)


def test_a_long_password_is_not_cut_before_its_end_is_known():
    target = Target()
    log = AccessLog(target, JsonLines())
    add(
        log,
        path=b"http://user:" + b"s3cret" * 2000 + b"@acme.example/x",
        host=b"u:" + b"s3cret" * 2000 + b"@acme.example",
    )
    log.flush()
    (line,) = target.lines
    assert (line["path"], line["host"]) == ("http://acme.example/x", "acme.example")
    assert b"s3cret" not in target.taken


@given(
    path=st.binary(max_size=300),
    host=st.binary(max_size=300),
    method=st.binary(max_size=300),
    user_agent=st.binary(max_size=300),
)
@pytest.mark.parametrize("lines", [JsonLines, CombinedLines])
def test_no_line_is_longer_than_collectors_take(lines, path, host, method, user_agent):
    values = {"path": path, "host": host, "method": method, "user_agent": user_agent}
    for repeated in (1, 10, 100):
        out = []
        log = AccessLog(out.append, lines())
        add(log, **{name: value * repeated for name, value in values.items()})
        log.flush()
        assert len(out[0]) <= LONGEST_LINE
        assert out[0].count(b"\n") == 1


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"minor": 0}, {"protocol": "HTTP/1.0"}),
        ({"http2": True}, {"protocol": "HTTP/2"}),
        ({"tls": b""}, {"tls": ""}),
        ({"user_agent": b""}, {"user_agent": ""}),
        ({"user_agent": b'a "b" \xff'}, {"user_agent": 'a "b" \xff'}),
        ({"user_agent": b"a" * 257}, {"user_agent": "a" * 256 + " (cut, 257 bytes)"}),
        # No service was asked.
        ({"sent_at": 0.0, "answered_at": 0.0, "trace": b""}, {"ttfb": None, "upstream_time": None, "trace_id": ""}),
        ({"answered_at": 0.0}, {"ttfb": None, "upstream_time": None}),
        # A response that came whole, and a request that waited for nothing.
        ({"answered_at": math.inf}, {"ttfb": 0.001235}),
        ({"sent_at": 0.0}, {"upstream_time": 0.001235}),
        ({"trace": b"", "traced": True, "trace_id": b"1" * 32}, {"trace_id": "1" * 32}),
        ({"retries": 1, "limit": 'a "limit"'}, {"retries": 1, "limit": 'a "limit"'}),
    ],
)
def test_what_a_line_says_of_the_way(changes, members):
    target = Target()
    log = AccessLog(target, JsonLines())
    add(log, **changes)
    log.flush()
    assert target.lines == [json.loads(reference()) | members]


def test_a_worker_says_which_it_is():
    target = Target()
    log = AccessLog(target, JsonLines(3))
    add(log)
    log.flush()
    assert target.lines == [json.loads(reference()) | {"worker": 3}]


TOKEN = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2VjcmV0"


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (b"/v1/users/" + TOKEN + b"/x", "/v1/users/(token)/x"),
        (b"/reset/" + TOKEN.replace(b".", b"%2E"), "/reset/(token)"),
        (b"/reset/eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.", "/reset/(token)"),
        (b"/v1/users/eyJ", "/v1/users/eyJ"),
        (b"/v1/users/monkeyJumps.a", "/v1/users/monkeyJumps.a"),
        (b"/a;jsessionid=secret/b;v=secret", "/a;jsessionid=*/b;v=*"),
        (b"/a%3Bjsessionid%3dsecret", "/a%3Bjsessionid%3d*"),
        (b"/a;b/c", "/a;b/c"),
    ],
)
@pytest.mark.parametrize("lines", [JsonLines, CombinedLines])
def test_tokens_in_a_path_are_never_written(lines, path, written):
    out = []
    log = AccessLog(out.append, lines())
    add(log, path=path)
    log.flush()
    shown = json.loads(out[0])["path"] if lines is JsonLines else out[0].split()[6].decode()
    assert shown == written


def test_the_combined_format():
    out = []
    log = AccessLog(out.append, CombinedLines())
    add(log)
    add(log, user_agent=b"", status=0, http2=True, path=b"/v1/users?token=secret")
    add(log, user_agent=b'a" 200 0 "\x1b[1m', path=b'/"')
    log.flush()
    stamp = "[23/Nov/2025:18:08:03 +0000]"
    assert b"".join(out).decode().splitlines() == [
        f'192.0.2.1 - - {stamp} "GET /v1/users/7 HTTP/1.1" 200 512 "-" "curl/8.0"',
        f'192.0.2.1 - - {stamp} "GET /v1/users HTTP/2" 0 512 "-" "-"',
        f'192.0.2.1 - - {stamp} "GET /\\x22 HTTP/1.1" 200 512 "-" "a\\x22 200 0 \\x22\\x1B[1m"',
    ]
