"""Requests to collectors that take spans, refuse them, hang, and talk nonsense."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from koder_gateway.tracing.collector import Collector, RefusedError
from tests.kit.authority import Authority
from tests.kit.span_collector import SpanCollector, raw
from tests.kit.waiting import PATIENCE

BODY = ExportTraceServiceRequest().SerializeToString()


At = Callable[..., Collector]


@pytest.fixture
def at() -> Iterator[At]:
    """Makes collectors, which are closed at the end."""
    made: list[Collector] = []

    def make(url: str, timeout: float = PATIENCE, ca: str = "") -> Collector:
        made.append(Collector(f"{url}/v1/traces", [("Authorization", "Bearer t")], ca, timeout))
        return made[-1]

    yield make
    for each in made:
        each.close()


def refused(collector: Collector) -> RefusedError:
    """Why it does not take a batch."""
    with pytest.raises(RefusedError) as caught:
        collector.post(BODY)
    return caught.value


@contextmanager
def listening(answer: bytes, *, drip: bool = False) -> Iterator[str]:
    """A server that says this to everybody, once or again and again."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.sendall(answer)
                    while drip and not over.wait(0.01):
                        connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def test_batches_go_over_one_connection(at: At) -> None:
    with SpanCollector() as there:
        collector = at(there.url)
        assert [collector.post(BODY) for _ in range(3)] == [0, 0, 0]
        assert there.connections == 1
        headers = there.headers[0]
        assert (headers["content-type"], headers["authorization"]) == ("application/x-protobuf", "Bearer t")
        assert there.paths[0] == "/v1/traces"


def test_rejected_spans_are_told(at: At) -> None:
    with SpanCollector(rejected=3) as there:
        assert at(there.url).post(BODY) == 3


@pytest.mark.parametrize(
    ("answer", "again", "after"),
    [
        (raw("429 Too Many Requests", "Retry-After: 7"), True, 7.0),
        (raw("503 Service Unavailable", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"), True, 0.0),
        (raw("502 Bad Gateway"), True, 0.0),
        (raw("504 Gateway Timeout", "Retry-After: 99999999"), True, 0.0),
        (raw("500 Oops"), False, 0.0),
        (raw("400 Bad Request"), False, 0.0),
        (raw("401 Unauthorized"), False, 0.0),
        (raw("302 Found", "Location: http://127.0.0.1:1/"), False, 0.0),
    ],
)
def test_what_a_status_means(at: At, answer: bytes, again: bool, after: float) -> None:
    with SpanCollector(answer) as there:
        collector = at(there.url)
        why = refused(collector)
        assert (str(why), why.again, why.after) == (f"it answers {answer[9:12].decode()}", again, after)
        # The next one goes over a connection of its own.
        assert collector.post(BODY) == 0
        assert len(there.bodies) == 2


@pytest.mark.parametrize("answer", [b"hello\r\n\r\n", b"\x00" * 100, b"HTTP/1.1 abc\r\n\r\n", b"x" * 100_000])
def test_nonsense_is_no_answer(at: At, answer: bytes) -> None:
    with listening(answer) as url:
        why = refused(at(url))
        assert (str(why) in ("its answer is no HTTP", "connection reset by peer", "broken pipe"), why.again) == (
            True,
            True,
        )


def test_a_body_that_is_no_otlp_is_an_answer(at: At) -> None:
    with SpanCollector(raw("200 OK", body=b"\xff\xffnonsense")) as there:
        assert at(there.url).post(BODY) == 0


def test_of_a_long_answer_little_is_read(at: At) -> None:
    with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000, drip=True) as url:
        assert at(url).post(BODY) == 0


def test_who_does_not_listen_is_tried_again(at: At) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    why = refused(at(f"http://127.0.0.1:{port}"))
    assert (str(why), why.again) == ("connection refused", True)


def test_who_never_answers_has_until_the_deadline(at: At) -> None:
    with SpanCollector(b"") as there:
        why = refused(at(there.url, timeout=0.2))
        assert (str(why), why.again) == ("no answer within 0.2 seconds", True)


def test_who_drips_has_until_the_deadline_too(at: At) -> None:
    with listening(b"HTTP/1.1 200 OK\r\n", drip=True) as url:
        assert str(refused(at(url, timeout=0.3))) == "no answer within 0.3 seconds"


def test_over_tls_the_certificate_must_be_trusted(at: At, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    pair = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with SpanCollector(context=context) as there:
        assert at(there.url, ca=str(authority.path)).post(BODY) == 0
        why = refused(at(there.url, ca=str(other.path)))
        assert str(why).startswith("its certificate is not trusted: ")
        assert why.again
        assert str(refused(at(there.url, ca=str(tmp_path / "none")))) == "no such file or directory"
        assert len(there.bodies) == 1


def test_a_kept_connection_that_has_ended_is_no_failure(at: At) -> None:
    with SpanCollector() as there:
        collector = at(there.url)
        collector.post(BODY)
        assert collector._connection is not None
        collector._connection.sock.shutdown(socket.SHUT_RDWR)
        assert collector.post(BODY) == 0
        assert there.connections == 2
