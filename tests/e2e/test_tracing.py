"""Traces of a gateway that runs: what a real collector gets, and what becomes of requests when it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import HOST
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, in_frames
from tests.kit.services import Origin, Peer, answer
from tests.kit.span_collector import CLIENT, SERVER, SpanCollector, raw
from tests.kit.waiting import until

TRACE_ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"traceparent: 00-{TRACE_ID}-{SPAN}-01"
LIMITED = """
[[limits]]
name = "few"
key = ["ip"]
rate = "1/h"
paths = ["/a/limited"]
"""


def play(peer: Peer, number: int) -> None:
    """Answers with the traceparent that it got; /a/tunnel switches and then says goodbye."""
    while (received := peer.head()) is not None:
        peer.body(received)
        trace = received.value(b"traceparent") or b""
        if received.target == b"/a/tunnel":
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            peer.finish()
            peer.until_gone()
            return
        peer.send(answer(trace, status="500 Oops" if received.target == b"/a/fails" else "200 OK"))


def sections(collector: SpanCollector, **tracing: Any) -> dict[str, dict[str, Any]]:
    return {"tracing": {"endpoint": collector.url, "sample": 1, **tracing}}


@contextmanager
def running(folder: Path, collector: SpanCollector, **more: Any) -> Iterator[tuple[GatewayProcess, SpanCollector]]:
    """A gateway that records everything for this collector."""
    with collector, Origin(play) as origin:
        config = configuration({"a": origin.url}, sections(collector, **more))
        with GatewayProcess(folder, config) as gateway:
            yield gateway, collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, SpanCollector]]:
    """A gateway that records everything, and its collector."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "headers").write_text("# for the collector\nAuthorization: Bearer hush\n")
    more = {"headers_file": "headers", "service_name": "edge", "resource": ["deployment.environment.name=test"]}
    with SpanCollector() as collector, Origin(play) as origin:
        config = configuration({"a": origin.url}, sections(collector, **more), LIMITED)
        with GatewayProcess(folder, config, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS)) as gateway:
            yield gateway, collector


def of_service(body: bytes) -> list[str]:
    """Trace, parent and flags that a service got."""
    return body.decode().split("-")[1:]


def test_spans_nest_from_the_client_to_the_service(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, collector = traced
    with gateway.connect() as client:
        got = client.ask("GET", "/a/nested?code=secret", PARENT)
    server, attempt = collector.of("/a/nested", 2)
    assert (server.kind, attempt.kind) == (SERVER, CLIENT)
    assert (server.trace, server.parent) == (TRACE_ID, SPAN)
    assert (attempt.trace, attempt.parent) == (TRACE_ID, server.span)
    assert of_service(got.body) == [TRACE_ID, attempt.span, "01"]
    assert server["http.response.status_code"] == 200
    assert server.begun <= attempt.begun <= attempt.events["response head"] <= attempt.ended <= server.ended
    said = {key: server.resource[key] for key in ("service.name", "deployment.environment.name")}
    assert said == {"service.name": "edge", "deployment.environment.name": "test"}
    assert len(str(server.resource["service.instance.id"])) == 16
    assert all(b"secret" not in body for body in collector.bodies)
    assert {headers["authorization"] for headers in collector.headers} == {"Bearer hush"}


def test_over_http2_they_do_too(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, collector = traced
    other = "4bf92f3577b34da6a3ce929d0e0e4736"
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", HOST.encode()),
        (b":path", b"/a/two"),
        (b"traceparent", f"00-{other}-{SPAN}-01".encode()),
    ]
    with Http2Client.connect(gateway.ports[1], HOST.encode()) as client:
        client.start()
        client.send(in_frames(1, block(fields)))
        got = client.answer(1)
    server, attempt = collector.of("/a/two", 2)
    assert (server["network.protocol.version"], server["url.scheme"]) == ("2", "https")
    assert server.parent == SPAN
    assert of_service(got.body) == [other, attempt.span, "01"]


def test_refusals_and_failures_say_why(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, collector = traced
    with gateway.connect() as client:
        statuses = [client.ask("GET", path).status for path in ("/a/limited", "/a/limited", "/nowhere", "/a/fails")]
    assert statuses == [200, 429, 404, 500]
    (_, _, refused) = collector.of("/a/limited", 3)
    assert (refused["koder.code"], refused["http.response.status_code"], refused.failed) == (
        "rate_limited",
        429,
        False,
    )
    (unrouted,) = collector.of("/nowhere")
    assert (unrouted["koder.code"], unrouted["koder.tenant"]) == ("no_route", "acme")
    failed = collector.of("/a/fails", 2)
    assert [(span.failed, span["error.type"]) for span in failed] == [(True, "500"), (True, "500")]
    # Each of them is in the log with its trace.
    logged = {line["path"]: line["trace_id"] for line in until(lambda: _logged(gateway, 4), "the log is written")}
    assert logged["/nowhere"] == unrouted.trace
    assert logged["/a/fails"] == failed[0].trace


def _logged(gateway: GatewayProcess, count: int) -> list[dict[str, Any]]:
    lines = gateway.access()
    return lines if len(lines) >= count else []


def test_a_tunnel_is_recorded_at_its_end(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, collector = traced
    with gateway.connect() as client:
        client.send(
            b"GET /a/tunnel HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" % HOST.encode()
        )
        assert client.head().status == 101
        client.rest()
    server, attempt = collector.of("/a/tunnel", 2)
    assert (server["http.response.status_code"], attempt["http.response.status_code"]) == (101, 101)
    assert not server.failed


def test_the_metrics_count_what_the_collector_took(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, collector = traced
    with gateway.connect() as client:
        client.ask("GET", "/a/counted")
    collector.of("/a/counted", 2)
    until(lambda: gateway.metrics()["koder_gateway_spans_exported_total"] >= 2, "they are counted")
    metrics = gateway.metrics()
    assert metrics['koder_gateway_spans_dropped_total{reason="full"}'] == 0
    assert metrics["koder_gateway_span_export_failures_total"] == 0


def exporter_of(pid: int) -> int:
    """The only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def test_the_exporter_has_no_socket_of_the_gateway(traced: tuple[GatewayProcess, SpanCollector]) -> None:
    gateway, _ = traced
    with gateway.connect() as client:
        client.ask("GET", "/a/held")
        pid = exporter_of(gateway.pid)

        def sockets(of: int) -> set[str]:
            links = []
            for each in os.listdir(f"/proc/{of}/fd"):
                try:
                    links.append(os.readlink(f"/proc/{of}/fd/{each}"))
                except FileNotFoundError:
                    continue
            return {link for link in links if link.startswith("socket:")}

        assert sockets(pid) & sockets(gateway.pid) == set()
    assert b"hush" not in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_the_exporter_ends_with_the_gateway(tmp_path: Path, kill: signal.Signals) -> None:
    """And when that ends in order, what it has is sent before."""
    with SpanCollector() as collector, Origin(play) as origin:
        with GatewayProcess(tmp_path, configuration({"a": origin.url}, sections(collector))) as gateway:
            until(lambda: _children(gateway.pid), "it runs")
            pid = exporter_of(gateway.pid)
            until(lambda: _ignores(pid, signal.SIGTERM), "it leaves signals to the gateway")
            os.kill(pid, signal.SIGTERM)
            with gateway.connect() as client:
                assert client.ask("GET", "/a/last").status == 200
            gateway.signal(kill)
            gateway.process.wait()
            until(lambda: is_gone(pid), "the exporter has ended")
        if kill == signal.SIGTERM:
            assert len(collector.of("/a/last", 2)) == 2


def test_a_collector_that_hangs_costs_no_request(tmp_path: Path) -> None:
    with SpanCollector(*[b""] * 9) as collector, Origin(play) as origin:
        config = configuration({"a": origin.url}, sections(collector, timeout="60s"))
        with GatewayProcess(tmp_path, config) as gateway:
            long = "/a/" + "x" * 4000
            with gateway.connect() as client:
                # Until nothing more of them finds room.
                for _ in range(60):
                    for _ in range(50):
                        assert client.ask("GET", long).status == 200
                    if gateway.metrics()['koder_gateway_spans_dropped_total{reason="full"}']:
                        break
                else:
                    raise AssertionError("nothing is ever dropped")
                before = gateway.memory("VmRSS")
                for _ in range(500):
                    assert client.ask("GET", long).status == 200
                # A span of these has 4 KiB.
                assert gateway.memory("VmRSS") - before < 1 << 20
                # Nor does it cost one to kill the exporter, and what it had is counted.
                os.kill(exporter_of(gateway.pid), signal.SIGKILL)
                until(lambda: "the exporter of spans has ended" in gateway.log(), "it says so")
                assert client.ask("GET", long).status == 200
            metrics = gateway.metrics()
            assert metrics["koder_gateway_spans_exported_total"] == 0
            assert metrics['koder_gateway_spans_dropped_total{reason="undelivered"}'] > 0


def test_a_reload_begins_changes_and_ends_it(tmp_path: Path) -> None:
    with SpanCollector() as one, SpanCollector() as other, Origin(play) as origin:
        with GatewayProcess(tmp_path, configuration({"a": origin.url})) as gateway:

            def ask(path: str) -> None:
                with gateway.connect() as client:
                    assert client.ask("GET", path).status == 200

            def reload(settings: dict[str, dict[str, Any]] | None) -> None:
                count = gateway.log().count("reloaded ")
                gateway.config.write_text(configuration({"a": origin.url}, settings))
                gateway.signal(signal.SIGHUP)
                until(lambda: gateway.log().count("reloaded ") > count, "it is reloaded")

            assert "koder_gateway_spans_exported_total" not in gateway.metrics()
            reload(sections(one))
            ask("/a/1")
            one.of("/a/1", 2)
            reload(sections(other))
            ask("/a/2")
            other.of("/a/2", 2)
            reload(None)
            ask("/a/3")
            children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
            until(lambda: not children.read_text(), "every exporter has ended")
            assert gateway.metrics()["koder_gateway_spans_exported_total"] == 4
        assert {span["url.path"] for span in [*one.spans, *other.spans] if span.kind == SERVER} == {"/a/1", "/a/2"}


def test_failures_are_logged_once_each_way(tmp_path: Path) -> None:
    answers = [raw("503 No", "Retry-After: 1"), b"\x00garbage\r\n\r\n"]
    with running(tmp_path, SpanCollector(*answers)) as (gateway, collector):
        with gateway.connect() as client:
            assert client.ask("GET", "/a/late").status == 200
        assert len(collector.of("/a/late", 2)) == 2
        until(lambda: "spans are exported to" in gateway.log(), "it says so")
        assert gateway.log().count("spans cannot be exported to") == 1
        assert f"{collector.url}/v1/traces: it answers 503;" in gateway.log()
        assert gateway.metrics()["koder_gateway_span_export_failures_total"] == 2


def test_each_worker_has_its_exporter(tmp_path: Path) -> None:
    with SpanCollector() as collector, Origin(play) as origin:
        document = sections(collector)
        document["listen"] = {"workers": 2}
        document["limits_store"] = {"url": "memory:"}
        with GatewayProcess(tmp_path, configuration({"a": origin.url}, document)) as gateway:
            until(lambda: len(gateway.workers) == 2, "both run")
            until(lambda: all(_children(pid) for pid in gateway.workers), "each has an exporter")
            exporters = [exporter_of(pid) for pid in gateway.workers]
            with gateway.connect() as client:
                assert client.ask("GET", "/a/w").status == 200
            (server, _) = collector.of("/a/w", 2)
            assert str(server.resource["service.instance.id"])[-2:] in ("-1", "-2")
        until(lambda: all(map(is_gone, exporters)), "they have ended")


def _ignores(pid: int, number: signal.Signals) -> bool:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
