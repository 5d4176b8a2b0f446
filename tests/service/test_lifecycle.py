"""The daemon from start to end: signals, reloads, logs, the admin port, and what it must live through."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit.authority import write_certificate
from tests.kit.clients import HOST, Client, request
from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.http1 import Message
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

IN_FLIGHT = "koder_gateway_exchanges_in_flight"
OPEN = "koder_gateway_connections_open"
over = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
BOTH = (GatewayProcess.PLAIN, GatewayProcess.TLS)


def start(folder: Path, origin: Origin, sections: dict[str, Any] | None = None, **options: Any) -> GatewayProcess:
    """A gateway before one service at /a, with a plain port and one for TLS."""
    return GatewayProcess(folder, configuration({"a": origin.url}, sections), ports=BOTH, **options)


class Held:
    """A service that holds every answer back until it is released, then keeps the connection."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.targets: list[str] = []

    def play(self, peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            self.targets.append(received.target.decode())
            body = peer.body(received)
            assert self.release.wait(PATIENCE)
            peer.send(answer(received.target + body))


# The end.


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
@over
def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, reactor: str, tls: bool) -> None:
    held = Held()
    with (
        Origin(held.play) as origin,
        start(tmp_path, origin, reactor=reactor) as gateway,
        contextlib.ExitStack() as clients,
    ):
        asking = [clients.enter_context(gateway.connect(tls=tls)) for _ in range(20)]
        uploading = [clients.enter_context(gateway.connect(tls=tls)) for _ in range(10)]
        idle = clients.enter_context(gateway.connect(tls=tls))
        for number, client in enumerate(asking):
            client.send(request("GET", f"/a/{number}"))
        for number, client in enumerate(uploading):
            client.send(request("POST", f"/a/upload/{number}", body=b"z" * 100)[:-50])
        until(lambda: len(held.targets) == 30, "all requests have reached the service")
        gateway.signal(signal.SIGTERM)
        idle.assert_closed()
        refused(gateway)
        for client in uploading:
            client.send(b"z" * 50)
        held.release.set()
        for number, client in enumerate(asking):
            seen = client.read()
            assert (seen.status, seen.body, seen.ended) == (200, f"/a/{number}".encode(), "complete")
            assert seen.get("connection") == "close"
            client.assert_closed()
        for number, client in enumerate(uploading):
            seen = client.read("POST")
            assert (seen.status, seen.body) == (200, f"/a/upload/{number}".encode() + b"z" * 100)
            client.assert_closed()
        assert gateway.process.wait(PATIENCE) == 0
        assert len(gateway.access()) == 30


def refused(gateway: GatewayProcess) -> None:
    """No port of the gateway's takes a connection."""

    def closed() -> bool:
        for port in gateway.ports:
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), PATIENCE):
                return False
        return True

    until(closed, "the ports are closed")


@over
def test_sigterm_under_load_loses_no_request_that_was_accepted(tmp_path: Path, tls: bool) -> None:
    """Each client asks on a kept connection without a pause. What reached the service is answered in full; a
    client whose connection was closed between two requests has heard nothing of an answer."""
    asked: set[str] = set()

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            asked.add(received.target.decode())
            peer.send(answer(received.target * 100))

    answered: set[str] = set()
    unheard: list[tuple[str, Message]] = []
    enough = threading.Event()

    def ask(gateway: GatewayProcess, number: int) -> None:
        with gateway.connect(tls=tls) as client:
            for turn in range(1_000_000):
                target = f"/a/{number}/{turn}"
                try:
                    seen = client.ask("GET", target)
                except OSError:
                    unheard.append((target, Message(ended="reset")))
                    return
                if not seen.status:
                    unheard.append((target, seen))
                    return
                assert (seen.body, seen.ended) == (target.encode() * 100, "complete")
                answered.add(target)
                if len(answered) > 1000:
                    enough.set()

    with (
        Origin(play) as origin,
        start(tmp_path, origin) as gateway,
        ThreadPoolExecutor(16) as pool,
    ):
        asking = [pool.submit(ask, gateway, number) for number in range(16)]
        assert enough.wait(PATIENCE)
        gateway.signal(signal.SIGTERM)
        for each in asking:
            each.result(PATIENCE)
        assert gateway.process.wait(PATIENCE) == 0
    assert asked == answered
    assert len(unheard) == 16


def test_a_request_whose_head_is_on_its_way_is_still_served(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        start(tmp_path, origin) as gateway,
        gateway.connect() as client,
        gateway.connect() as idle,
    ):
        head = request("GET", "/a", "X-Field: value")
        client.send(head[:20])
        idle.ask("GET", "/a")
        gateway.signal(signal.SIGTERM)
        idle.assert_closed()
        client.send(head[20:])
        seen = client.read()
        assert (seen.status, seen.body) == (200, b"/a fresh")
        assert gateway.process.wait(PATIENCE) == 0


@over
def test_what_a_slow_client_has_not_taken_yet_is_not_lost_at_the_end(tmp_path: Path, tls: bool) -> None:
    """An exchange has ended once its last byte is written; that byte still has to leave the process.

    Answers of many sizes go to clients that read nothing. Some fit into the buffers on the way, and so their
    exchanges end; of the largest of these a part is in the gateway's own buffer.
    """
    sizes = [number * 96 * 1024 for number in range(10, 60)]

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.send(answer(b"z" * int(received.target.rpartition(b"/")[2])))

    with Origin(play) as origin, start(tmp_path, origin) as gateway, contextlib.ExitStack() as stack:
        clients = {size: stack.enter_context(gateway.connect(tls=tls, receive_buffer=16384)) for size in sizes}
        for size, client in clients.items():
            client.send(request("GET", f"/a/{size}"))
            assert client.head().status == 200
        taken = {size: len(client.receive()) for size, client in clients.items()}

        def ended() -> list[int]:
            return [int(line["path"].rpartition("/")[2]) for line in gateway.access()]

        # The rest is stuck: what is in flight does not change any more from one look to the next.
        seen: list[int] = []

        def stuck() -> bool:
            seen.append(len(sizes) - int(gateway.metrics()[IN_FLIGHT]))
            return len(seen) > 50 and len(set(seen[-50:])) == 1 and seen[-1] == len(ended())

        until(stuck, "the exchanges that can end have ended")
        complete = ended()
        assert complete
        for size in set(sizes) - set(complete):
            clients[size].abort()
        until(lambda: gateway.metrics()[IN_FLIGHT] == 0, "nothing is in flight")
        gateway.signal(signal.SIGTERM)
        refused(gateway)
        lost = {size: size - taken[size] - len(clients[size].rest()) for size in complete}
        assert {size: left for size, left in lost.items() if left} == {}
        assert gateway.process.wait(PATIENCE) == 0


def admin_connection(gateway: GatewayProcess) -> Client:
    """A kept connection to the admin port."""
    return Client(socket.create_connection(("127.0.0.1", gateway.admin), PATIENCE))


def test_the_drain_s_deadline_ends_what_does_not_end_by_itself(tmp_path: Path) -> None:
    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        assert received is not None
        if received.target == b"/a/half":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        peer.until_gone()

    with (
        Origin(play) as origin,
        start(tmp_path, origin, {"timeouts": {"drain": "500ms"}}) as gateway,
        gateway.connect() as waiting,
        gateway.connect() as half,
        gateway.connect() as unsent,
    ):
        waiting.send(request("GET", "/a/waiting"))
        half.send(request("GET", "/a/half"))
        assert half.head().status == 200
        unsent.send(request("GET", "/a")[:-10])
        until(lambda: gateway.metrics()[IN_FLIGHT] == 2, "both are in flight")
        gateway.signal(signal.SIGTERM)
        seen = waiting.read()
        assert (seen.status, seen.code, seen.get("retry-after")) == (503, "draining", "1")
        waiting.assert_closed()
        assert half.rest() == b"hello"
        unsent.rest()
        assert gateway.process.wait(PATIENCE) == 0
        codes = {line["path"]: (line["status"], line["code"]) for line in gateway.access()}
        assert codes["/a/waiting"] == (503, "draining")
        assert codes["/a/half"][0] == 200
        assert codes["/a/half"][1] != ""


def test_who_asks_twice_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    held = Held()
    with Origin(held.play) as origin, start(tmp_path, origin) as gateway, gateway.connect() as client:
        client.send(request("GET", "/a"))
        until(lambda: held.targets, "it is in flight")
        gateway.signal(signal.SIGTERM)
        refused(gateway)
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE) == 1
        held.release.set()


def test_sigint_is_an_end_in_order_too(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin) as gateway, gateway.connect() as client:
        assert client.ask("GET", "/a").status == 200
        gateway.signal(signal.SIGINT)
        client.assert_closed()
        assert gateway.process.wait(PATIENCE) == 0


# Reloads.


def reloads(gateway: GatewayProcess, result: str) -> float:
    return gateway.metrics().get(f'koder_gateway_reloads_total{{result="{result}"}}', 0)


def reload(gateway: GatewayProcess, config: str, result: str = "ok") -> None:
    """Have the gateway read another configuration."""
    before = reloads(gateway, result)
    gateway.config.write_text(config)
    gateway.signal(signal.SIGHUP)
    until(lambda: reloads(gateway, result) == before + 1, f"the reload was {result}")


LIMIT = '[[limits]]\nname = "few"\nkey = ["tenant"]\nrate = "1/h"\nburst = 3\npaths = ["/a/limited"]\n'


def test_a_reload_serves_the_new_configuration_on_the_old_connections(tmp_path: Path) -> None:
    with Origin() as origin, Origin(lambda peer, number: peer.serve(b"new")) as fresh:
        config = configuration({"a": origin.url}, None, LIMIT)
        with GatewayProcess(tmp_path, config) as gateway, gateway.connect() as client:
            assert [client.ask("GET", "/a/limited").status for _ in range(4)] == [200, 200, 200, 429]
            assert client.ask("GET", "/b").code == "no_route"
            reload(
                gateway, configuration({"a": origin.url, "b": fresh.url}, {"requests": {"max_body": "1KiB"}}, LIMIT)
            )
            assert client.ask("GET", "/b").body == b"/b new"
            assert client.ask("GET", "/a").body == b"/a fresh"
            # The bucket is as empty as before, and the connection to the service the same.
            assert client.ask("GET", "/a/limited").status == 429
            assert origin.accepted == 1
            assert client.ask("POST", "/a", body=b"z" * 1025).code == "body_too_large"


def test_a_reload_moves_a_service_and_lets_its_exchanges_end(tmp_path: Path) -> None:
    held = Held()
    with Origin(held.play) as old, Origin() as new, start(tmp_path, old) as gateway:
        with gateway.connect() as before, gateway.connect() as client:
            before.send(request("GET", "/a/before"))
            until(lambda: held.targets, "it is in flight")
            reload(gateway, configuration({"a": new.url}))
            assert client.ask("GET", "/a").body == b"/a fresh"
            held.release.set()
            assert before.read().body == b"/a/before"
            assert before.ask("GET", "/a").body == b"/a fresh"
        until(lambda: old.open == 0, "no connection to the old address is kept")


def test_deadlines_hold_for_exchanges_with_a_service_that_a_reload_replaced(tmp_path: Path) -> None:
    held = Held()
    sections = {"timeouts": {"response": "1s"}}
    with Origin(held.play) as old, Origin() as new, start(tmp_path, old, sections) as gateway:
        with gateway.connect() as client:
            client.send(request("GET", "/a"))
            until(lambda: held.targets, "it is in flight")
            reload(gateway, configuration({"a": new.url}, sections))
            seen = client.read()
            assert (seen.status, seen.code) == (504, "upstream_timeout")
        held.release.set()


# What makes a configuration faulty, and what the gateway says of it.
SPOILS: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text.replace("[log]", "[logs]"), r"koder-gateway\.toml: logs: .*\blog\b"),
    (lambda text: text + "[[[", r"koder-gateway\.toml: line [0-9]+"),
    (lambda text: text.replace('"certs"', '"nowhere"'), r"koder-gateway\.toml: tls\.certificates: .*nowhere"),
    (lambda text: text.replace('"access.log"', '"nowhere/access.log"'), r"koder-gateway\.toml: log\.file: "),
]


def test_a_bad_reload_changes_nothing_and_says_why(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        Origin() as other,
        start(tmp_path, origin) as gateway,
        gateway.connect() as client,
        gateway.connect(tls=True) as secure,
    ):
        assert client.ask("GET", "/a").status == 200
        for spoil, _ in SPOILS:
            reload(gateway, spoil(configuration({"a": other.url})), "failed")
            assert client.ask("GET", "/a").status == 200
            assert secure.ask("GET", "/a").status == 200
        assert (origin.accepted, other.accepted) == (1, 0)
        told = [line for line in gateway.log().splitlines() if "reload refused" in line]
        assert len(told) == len(SPOILS)
        for line, (_, says) in zip(told, SPOILS, strict=True):
            assert re.search(says, line), line
        reload(gateway, configuration({"a": other.url}))
        assert client.ask("GET", "/a").status == 200
        assert other.accepted == 1


def test_certificates_are_served_as_their_files_change(tmp_path: Path) -> None:
    """Nobody tells the gateway: it looks, and what it cannot use leaves what is there."""
    with Origin() as origin, start(tmp_path, origin) as gateway, gateway.connect(tls=True) as old:
        before = served_certificate(gateway)
        write_certificate(gateway.folder / "certs", f"*.{HOST.partition('.')[2]}", "id.test")
        until(lambda: served_certificate(gateway) != before, "the new certificate serves")
        assert old.ask("GET", "/a").status == 200
        kept = gateway.certificate.read_bytes()
        serves = served_certificate(gateway)
        gateway.certificate.write_text("no certificate")
        told = "default.pem: no certificate in it"
        until(lambda: told in gateway.log(), "the fault is told")
        assert gateway.metrics()["koder_gateway_certificate_faults"] == 1
        assert reloads(gateway, "failed") == 0
        gateway.certificate.write_bytes(kept)
        until(lambda: gateway.metrics()["koder_gateway_certificate_faults"] == 0, "it is whole again")
        assert served_certificate(gateway) == serves
        assert gateway.log().count(told) == 1
        assert old.ask("GET", "/a").status == 200


def test_a_reload_reads_the_certificates_again(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin) as gateway, gateway.connect(tls=True) as old:
        before = served_certificate(gateway)
        write_certificate(gateway.folder / "certs", f"*.{HOST.partition('.')[2]}", "id.test")
        other = gateway.folder / "certs" / "other.pem"
        other.write_text("no certificate")
        reload(gateway, gateway.config.read_text())
        until(lambda: served_certificate(gateway) != before, "the new certificate serves")
        assert old.ask("GET", "/a").status == 200
        until(lambda: f"{other}: no certificate in it" in gateway.log(), "the broken one is told")
        assert old.ask("GET", "/a").status == 200


def test_strictly_unknown_names_are_refused_and_a_reload_changes_it(tmp_path: Path) -> None:
    def greet(name: str | None) -> str:
        with socket.create_connection(("127.0.0.1", gateway.ports[-1]), PATIENCE) as connection:
            try:
                trust.wrap_socket(connection, server_hostname=name).close()
            except ssl.SSLError as error:
                return error.reason or ""
        return "served"

    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    with Origin() as origin, start(tmp_path, origin) as gateway:
        assert [greet("unknown.test"), greet(None), greet(HOST)] == ["served"] * 3
        reload(gateway, configuration({"a": origin.url}, {"tls": {"strict_sni": True}}))
        refused = ["TLSV1_UNRECOGNIZED_NAME"] * 2
        assert [greet("unknown.test"), greet(None), greet(HOST)] == [*refused, "served"]
        assert served_certificate(gateway)


def agreed(gateway: GatewayProcess) -> tuple[str | None, bytes]:
    """What ALPN chooses for a client that would rather have HTTP/2, and the first that it is told unasked."""
    trust = gateway.trust()
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE) as connection,
        trust.wrap_socket(connection, server_hostname=HOST, suppress_ragged_eofs=True) as secured,
    ):
        chosen = secured.selected_alpn_protocol()
        try:
            return chosen, secured.recv(65536) if chosen == "h2" else b""
        except ConnectionResetError:
            return chosen, b""


def test_a_reload_ends_and_begins_http2(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin) as gateway:
        for offered, expected in ((True, "h2"), (False, "http/1.1"), (True, "h2")):
            reload(gateway, configuration({"a": origin.url}, {"listen": {"http2": offered}}))
            assert agreed(gateway)[0] == expected


def test_whoever_is_turned_away_over_http2_gets_no_http_1_1(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin, {"listen": {"max_connections": 1}}) as gateway:
        chosen, told = agreed(gateway)
        assert (chosen, told[3:4]) == ("h2", b"\x04"), "SETTINGS"
        until(lambda: gateway.metrics()[OPEN] == 0, "it has left")
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200
            assert agreed(gateway) == ("h2", b"")
            assert client.ask("GET", "/a").status == 200


def test_a_drain_is_not_reloaded(tmp_path: Path) -> None:
    held = Held()
    with Origin(held.play) as origin, start(tmp_path, origin) as gateway, gateway.connect() as client:
        client.send(request("GET", "/a"))
        until(lambda: held.targets, "it is in flight")
        gateway.signal(signal.SIGTERM)
        refused(gateway)
        gateway.signal(signal.SIGHUP)
        until(lambda: "not reloaded: the gateway is shutting down" in gateway.log(), "it says so")
        assert (reloads(gateway, "ok"), reloads(gateway, "failed")) == (0, 0)
        held.release.set()
        assert client.read().status == 200
        assert gateway.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("how", ["index=0", "name=https"])
def test_a_socket_of_systemd_s_speaks_tls(tmp_path: Path, how: str) -> None:
    with (
        Origin() as origin,
        socket.create_server(("127.0.0.1", 0)) as listening,
        GatewayProcess(
            tmp_path, configuration({"a": origin.url}), ports=(f"tls+systemd:domain=INET:{how}",), inherited=listening
        ) as gateway,
    ):
        assert gateway.ports == [listening.getsockname()[1]]
        with gateway.connect(tls=True) as client:
            assert client.ask("GET", "/a").status == 200


def test_a_bare_port_serves_both_families_and_knows_an_ipv4_client_as_one(tmp_path: Path) -> None:
    with Origin(lambda peer, number: echo_fields(peer)) as origin:
        config = configuration({"a": origin.url})
        ports = ("http://:0", ":0")
        with GatewayProcess(tmp_path, config, ports=ports) as gateway:
            for host in ("127.0.0.1", "::1"):
                connection = socket.create_connection((host, gateway.ports[0]), PATIENCE)
                with Client(connection) as client:
                    assert f"x-forwarded-for: {host}\r\n" in client.ask("GET", "/a").body.decode().lower()
            with gateway.connect(tls=True) as client:
                assert client.ask("GET", "/a").status == 200
        assert [line["client"] for line in gateway.access()] == ["127.0.0.1", "::1", "127.0.0.1"]


def echo_fields(peer: Peer) -> None:
    """Answer each request with its head."""
    while (received := peer.head()) is not None:
        peer.body(received)
        peer.send(answer(b"".join(b"%b: %b\r\n" % pair for pair in received.fields)))


@pytest.mark.parametrize("reactor", ["", "epoll", "asyncio"])
@pytest.mark.parametrize("port", ["systemd:domain=UNIX:index=0", "haproxy:systemd:domain=UNIX:index=0"])
def test_a_unix_socket_of_systemd_s_outlives_the_process(tmp_path: Path, reactor: str, port: str) -> None:
    path = tmp_path / "gateway.sock"
    with Origin() as origin, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        introduction = "PROXY UNKNOWN\r\n" if "haproxy" in port else ""
        for _ in range(2):
            waiting = Client(socket.socket(socket.AF_UNIX))
            with waiting:
                waiting.socket.settimeout(PATIENCE)
                waiting.socket.connect(str(path))
                waiting.send(introduction.encode() + request("GET", "/a"))
                with GatewayProcess(
                    tmp_path,
                    configuration({"a": origin.url}),
                    ports=(port,),
                    reactor=reactor,
                    inherited=listening,
                ):
                    assert waiting.read().status == 200, "who came while nobody was there is served by the next"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("reactor", ["", "epoll"])
def test_so_does_one_that_the_admin_port_has(tmp_path: Path, reactor: str) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        config = configuration({}, {"listen": {"admin_port": "systemd:domain=UNIX:index=0"}})
        for _ in range(2):
            with (
                GatewayProcess(tmp_path, config, admin=False, reactor=reactor, inherited=listening),
                Client(socket.socket(socket.AF_UNIX)) as client,
            ):
                client.socket.settimeout(PATIENCE)
                client.socket.connect(str(path))
                assert client.ask("GET", "/healthz", "Connection: close").status == 200
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nobody_is_dropped_while_gateways_take_turns_on_one_socket(tmp_path: Path) -> None:
    answered, faults = [], []
    done = threading.Event()

    def ask(port: int) -> None:
        while not done.is_set():
            try:
                with Client(socket.create_connection(("127.0.0.1", port), PATIENCE)) as client:
                    answered.append(client.ask("GET", "/a", "Connection: close").status)
            except Exception as fault:
                faults.append(fault)

    with Origin() as origin, socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        threads = [threading.Thread(target=ask, args=(listening.getsockname()[1],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                with GatewayProcess(
                    tmp_path,
                    configuration({"a": origin.url}),
                    ports=("systemd:domain=INET:index=0",),
                    inherited=listening,
                ):
                    before = len(answered)
                    until(lambda before=before: len(answered) >= before + 300, "clients are served")
            with GatewayProcess(
                tmp_path,
                configuration({"a": origin.url}),
                ports=("systemd:domain=INET:index=0",),
                inherited=listening,
            ):
                done.set()
                for thread in threads:
                    thread.join(PATIENCE)
        finally:
            done.set()
    assert not faults
    assert set(answered) == {200}


def served_certificate(gateway: GatewayProcess) -> bytes | None:
    """The certificate that a new connection is shown, whatever lies in its file by now."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", gateway.ports[-1]), PATIENCE) as connection,
        trusting.wrap_socket(connection, server_hostname=HOST) as client,
    ):
        return client.getpeercert(binary_form=True)


def tenants(*slugs: str, **states: str) -> str:
    entries = [*((slug, "active") for slug in slugs), *states.items()]
    return "\n".join(f'[[tenant]]\nslug = "{slug}"\nstatus = "{status}"\n' for slug, status in entries)


def test_the_registry_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    registry = tmp_path / "tenants.toml"
    registry.write_text(tenants("acme"))
    sections = {"tenants": {"registry": "tenants.toml", "refresh": "100ms"}}

    def rewrite(text: str) -> None:
        fresh = tmp_path / "fresh.toml"
        fresh.write_text(text)
        fresh.rename(registry)

    with Origin() as origin, start(tmp_path, origin, sections) as gateway, gateway.connect() as client:
        assert client.ask("GET", "/a").status == 200
        assert gateway.metrics()["koder_gateway_tenants"] == 1
        rewrite(tenants(acme="suspended"))
        until(lambda: client.ask("GET", "/a").code == "tenant_suspended", "the tenant is suspended")
        rewrite(tenants("globex"))
        until(lambda: client.ask("GET", "/a").code == "unknown_tenant", "the tenant is gone")
        rewrite("[[tenant]]\nslug = 'NO'\n")
        until(lambda: "tenants.toml: tenant[0].slug" in gateway.log(), "the fault is told")
        assert client.ask("GET", "/a").code == "unknown_tenant"
        registry.unlink()
        until(lambda: "No such file" in gateway.log() or "no such file" in gateway.log(), "the loss is told")
        assert client.ask("GET", "/a").code == "unknown_tenant"
        rewrite(tenants("acme", "globex"))
        until(lambda: client.ask("GET", "/a").status == 200, "the tenant is back")
        assert gateway.metrics()["koder_gateway_tenants"] == 2
        # A suspension and a removal end what is under way, and the connection that served it.
        assert origin.accepted <= 3


# Logs.

KEYS = [
    *("time", "request_id", "tenant", "client", "tls", "host", "method", "path", "protocol", "user_agent", "route"),
    *(
        "service",
        "status",
        "code",
        "bytes_in",
        "bytes_out",
        "duration",
        "trace_id",
        "ttfb",
        "upstream_time",
        "retries",
    ),
    *("limit", "worker", "v"),
]


def test_the_access_log_has_a_line_for_each_exchange_and_no_secret(tmp_path: Path) -> None:
    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.body(received)
            if received.target.startswith(b"/a/cut"):
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
                return
            peer.send(answer(b"hello", "Set-Cookie: session=hunter2", status="201 Created"))

    with Origin(play) as origin, start(tmp_path, origin) as gateway:
        with gateway.connect() as client:
            seen = client.ask(
                "POST",
                "/a/x?code=hunter2",
                "Authorization: Bearer hunter2",
                "Cookie: session=hunter2",
                "X-API-Key: hunter2",
                "X-Request-ID: my-id",
                body=b"password=hunter2",
            )
            assert seen.status == 201
            assert client.ask("GET", "/nowhere?token=hunter2").code == "no_route"
            client.send(b"GET /a/../x?hunter2 HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST.encode())
            assert client.read().code == "bad_request"
        with gateway.connect() as client:
            assert client.ask("GET", "/a/cut").ended == "cut"
        with gateway.connect() as client:
            client.send(b"hunter2 garbage\r\n\r\n")
            assert client.read().status == 400
        assert gateway.stop() == 0
        text = (tmp_path / "access.log").read_text()
        assert "hunter2" not in text
        assert "hunter2" not in gateway.log()
        lines = gateway.access()
        assert [list(line) for line in lines] == [KEYS] * 5
        full, lost, bad, cut, garbage = lines
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", full.pop("time"))
        assert 0 < full.pop("ttfb") <= full.pop("duration") < PATIENCE
        assert 0 < full.pop("upstream_time") < PATIENCE
        assert re.fullmatch("[0-9a-f]{32}", full.pop("trace_id"))
        assert full == {
            "request_id": "my-id",
            "tenant": "acme",
            "client": "127.0.0.1",
            "host": HOST,
            "method": "POST",
            "path": "/a/x",
            "route": "/a",
            "service": "a",
            "status": 201,
            "code": "",
            "bytes_in": 16,
            "bytes_out": 5,
            "tls": "",
            "protocol": "HTTP/1.1",
            "user_agent": "",
            "retries": 0,
            "limit": "",
            "worker": 0,
            "v": 1,
        }
        assert (lost["status"], lost["code"], lost["path"], lost["service"]) == (404, "no_route", "/nowhere", "")
        assert (bad["status"], bad["code"]) == (400, "bad_request")
        assert (cut["status"], cut["code"], cut["bytes_out"]) == (200, "closed", 5)
        assert (garbage["status"], garbage["code"], garbage["service"]) == (400, "bad_request", "")
        assert len({line["request_id"] for line in lines}) == 5


def test_a_rotated_access_log_is_opened_again(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin) as gateway, gateway.connect() as client:
        client.ask("GET", "/a/1")
        (tmp_path / "access.log").rename(tmp_path / "access.log.1")
        reload(gateway, gateway.config.read_text())
        client.ask("GET", "/a/2")
        assert gateway.stop() == 0
        assert [line["path"] for line in gateway.access()] == ["/a/2"]
        assert '"/a/1"' in (tmp_path / "access.log.1").read_text()


def test_no_access_log_where_none_is_wanted(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        start(tmp_path, origin, {"log": {"access": False}}) as gateway,
        gateway.connect() as client,
    ):
        assert client.ask("GET", "/a").status == 200
    assert not (tmp_path / "access.log").exists()


def test_the_access_log_goes_to_the_standard_output_by_default(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        start(tmp_path, origin, {"log": {"file": "-"}}) as gateway,
        gateway.connect() as client,
    ):
        assert client.ask("GET", "/a/here").status == 200
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith('{"time":')]
    assert [line["path"] for line in lines] == ["/a/here"]


def test_a_full_log_disk_stops_nobody(tmp_path: Path) -> None:
    with (
        Origin() as origin,
        start(tmp_path, origin, {"log": {"file": "/dev/full"}}) as gateway,
        gateway.connect() as client,
    ):
        for _ in range(10):
            assert client.ask("GET", "/a").status == 200
        dropped = "koder_gateway_access_log_dropped_lines_total"
        until(lambda: gateway.metrics()[dropped] == 10, "the lost lines are counted")
        assert client.ask("GET", "/a").status == 200
    assert gateway.log().count("the access log cannot be written") == 1


# The admin port.


def test_the_admin_port_tells_how_the_gateway_is(tmp_path: Path) -> None:
    held = Held()
    with Origin(held.play) as origin, start(tmp_path, origin) as gateway:
        assert gateway.ask_admin("/healthz") == (200, "ok\n")
        assert gateway.ask_admin("/readyz") == (200, "ready\n")
        assert gateway.ask_admin("/nothing")[0] == 404
        with gateway.connect() as client:
            for path in ("/healthz", "/readyz", "/metrics"):
                assert client.ask("GET", path).code == "no_route"
            client.send(request("POST", "/a", body=b"12345"))
            until(lambda: held.targets, "it is in flight")
            metrics = gateway.metrics()
            assert metrics[IN_FLIGHT] == 1
            assert metrics[OPEN] == 1
            assert metrics['koder_gateway_upstream_connections{service="a",state="active"}'] == 1
            held.release.set()
            assert client.read().status == 200
        metrics = gateway.metrics()
        assert metrics[IN_FLIGHT] == 0
        assert metrics['koder_gateway_requests_total{service="a",status="2xx"}'] == 1
        assert metrics['koder_gateway_requests_total{service="",status="4xx"}'] == 3
        assert metrics['koder_gateway_refusals_total{code="no_route"}'] == 3
        assert metrics['koder_gateway_received_bytes_total{service="a"}'] == 5
        assert metrics['koder_gateway_upstream_connections{service="a",state="idle"}'] == 1
        assert metrics['koder_gateway_request_duration_seconds_count{service="a"}'] == 1


def test_a_draining_gateway_says_that_it_is_not_ready(tmp_path: Path) -> None:
    """To probes that come while exchanges are still in flight, and to those on a kept connection."""
    held = Held()
    with Origin(held.play) as origin, start(tmp_path, origin) as gateway, admin_connection(gateway) as kept:
        probe = request("GET", "/readyz").replace(HOST.encode(), b"localhost")
        kept.send(probe)
        assert kept.read().status == 200
        with gateway.connect() as client:
            client.send(request("GET", "/a"))
            until(lambda: held.targets, "it is in flight")
            gateway.signal(signal.SIGTERM)
            refused(gateway)
            kept.send(probe)
            seen = kept.read()
            assert seen.status == 503
            assert json.loads(seen.body)["code"] == "draining"
            status, body = gateway.ask_admin("/readyz")
            assert (status, json.loads(body)["code"]) == (503, "draining")
            assert gateway.ask_admin("/healthz") == (200, "ok\n")
            assert gateway.metrics()[IN_FLIGHT] == 1
            held.release.set()
            assert client.read().status == 200
        assert gateway.process.wait(PATIENCE) == 0


# Starts that fail.


def attempt(*words: object, command: str = "twistd") -> subprocess.CompletedProcess[str]:
    """Start a gateway that is expected to end by itself."""
    before = ["--nodaemon", "--pidfile="] if command == "twistd" else []
    return subprocess.run(
        [tool(command), *before, "koder-gateway", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def assert_refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    """Exit code 1 and these lines, in this order, as regular expressions; nothing else and no traceback."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr + done.stdout
    assert len(lines) == len(says), done.stderr
    for line, pattern in zip(lines, says, strict=True):
        assert re.fullmatch(f"koder-gateway: {pattern}", line), line
    assert "Traceback" not in done.stdout, done.stdout


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration without a fault."""
    write_certificate(tmp_path / "certs", "id.test", "*.id.test")
    path = tmp_path / "koder-gateway.toml"
    path.write_text(configuration({"a": "http://127.0.0.1:1"}))
    return path


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_a_port_that_is_taken(config: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        done = attempt("--config", config, "--port", endpoint, command=command)
        assert_refused(done, rf'endpoint "{endpoint}": .*[Aa]ddress already in use.*')


def test_every_port_that_is_taken_is_told(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        plain = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        secure = plain.replace("tcp:", "ssl:")
        ports = ["--port", GatewayProcess.PLAIN, "--port", secure, "--admin-port", plain]
        done = attempt("--config", config, *ports)
        assert_refused(done, *(rf'endpoint "{each}": .*[Aa]ddress already in use.*' for each in (secure, plain)))


def test_keys_that_cannot_be_used(config: Path) -> None:
    garbage, another = config.parent / "garbage.key", config.parent / "another.key"
    garbage.write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    shutil.copy(write_certificate(config.parent / "other", "id.test"), another)
    certificate = config.parent / "certs" / "default.pem"
    keys = [config.parent / "missing.key", garbage, another]
    ports = [f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}" for key in keys]
    done = attempt("--config", config, *(word for port in ports for word in ("--port", port)))
    assert_refused(done, *(rf'endpoint "{re.escape(port)}": .+' for port in ports))


ENDPOINTS = [
    "443",
    "ssl",
    "tcp:abc",
    "tcp:99999",
    "nonsense:80",
    "tcp:80:nonsense=1",
    "tcp:",
    "ssl:0:privateKey=x:y=z",
]


def test_endpoints_that_are_none(config: Path) -> None:
    ports = [word for endpoint in ENDPOINTS for word in ("--port", endpoint)]
    done = attempt("--config", config, *ports, "--admin-port", "nonsense:80")
    assert_refused(done, *(f'endpoint "{re.escape(endpoint)}": .+' for endpoint in [*ENDPOINTS, "nonsense:80"]))


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_every_fault_of_the_configuration_is_told_at_once(config: Path, command: str) -> None:
    config.write_text(
        '[tenants]\nbase_domian = "x"\nrefresh = 30\nregistry = "missing.toml"\n'
        '[services]\na = "ftp://x"\n[[routes]]\npath = "/a"\nservice = "b"\n[timeouts]\nhead = "soon"\n'
    )
    done = attempt("--config", config, "--port", GatewayProcess.PLAIN, command=command)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for key in (
        "tenants.base_domian",
        "tenants.refresh",
        "tenants.registry",
        "services.a",
        r"routes[0].service",
        "timeouts.head",
    ):
        assert [line for line in lines if line.startswith(f"koder-gateway: {config}: {key}: ")], (key, lines)
    assert len(lines) == 6


def test_a_configuration_that_is_not_there(config: Path) -> None:
    missing = config.parent / "nowhere.toml"
    assert_refused(attempt("--config", missing, "--port", GatewayProcess.PLAIN), f"{missing}: .+")


# Other ways to run it.


def test_twist_runs_it_too(tmp_path: Path) -> None:
    with Origin() as origin:
        config = configuration({"a": origin.url})
        with GatewayProcess(tmp_path, config, command="twist", ports=BOTH) as gateway:
            for tls in (False, True):
                with gateway.connect(tls=tls) as client:
                    assert client.ask("POST", "/a", body=b"z" * 1000).body == b"/a fresh"
            reload(gateway, config)


def test_it_becomes_a_daemon(tmp_path: Path) -> None:
    with Origin() as origin, Origin(listening=False) as reserved:
        port = reserved.port
        reserved.close()
        config = tmp_path / "koder-gateway.toml"
        config.write_text(
            configuration({"a": origin.url}).replace("[tls]\n", "").replace('certificates = "certs"\n', "")
        )
        words = ["--pidfile", str(tmp_path / "pid"), "--logfile", str(tmp_path / "log"), "koder-gateway"]
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        done = subprocess.run(
            [tool("twistd"), *words, "--config", str(config), "--port", endpoint],
            capture_output=True,
            timeout=PATIENCE,
        )
        log = (tmp_path / "log").read_text()
        assert done.returncode == 0, (done, log)
        pid = int((tmp_path / "pid").read_text())
        try:
            with Client(until_connected(port)) as client:
                assert client.ask("GET", "/a").body == b"/a fresh"
        finally:
            os.kill(pid, signal.SIGTERM)
        until(lambda: not (tmp_path / "pid").exists(), "the daemon has ended")
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("command", ["twistd", "run"])
def test_it_starts_where_nothing_can_be_written_and_twice_from_one_folder(tmp_path: Path, command: str) -> None:
    words = [tool("twistd"), "-n", "koder-gateway"] if command == "twistd" else [tool("koder-gateway"), "run"]
    config = tmp_path / "koder-gateway.toml"
    config.write_text("[state]\ndir = 'state'\n")
    with contextlib.ExitStack() as stack:
        started = [
            subprocess.Popen(
                [*words, "--config", str(config), "--port", "tcp:0:interface=127.0.0.1"],
                cwd="/proc",
                stdout=stack.enter_context((tmp_path / f"{number}.log").open("wb")),
                stderr=subprocess.STDOUT,
            )
            for number in range(2)
        ]
        for process in started:
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.kill)
        for number, process in enumerate(started):
            log = tmp_path / f"{number}.log"
            until(lambda log=log: " serves on " in log.read_text(), "it serves")
            # Once somebody is answered the reactor runs, and signals are heard.
            (port,) = re.findall(r"GatewaySite starting on ([0-9]+)", log.read_text())
            with Client(socket.create_connection(("127.0.0.1", int(port)), PATIENCE)) as client:
                assert client.ask("GET", "/").status
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, log.read_text()
            assert "Traceback" not in log.read_text()


def test_a_pidfile_that_is_asked_for_tells_a_live_gateway_from_a_stale_one(tmp_path: Path, config: Path) -> None:
    config.write_text("[state]\ndir = 'state'\n")
    pidfile, log = tmp_path / "pid", tmp_path / "log"
    words = [tool("twistd"), "-n", f"--pidfile={pidfile}", "koder-gateway"]
    words += ["--config", str(config), "--port", "tcp:0:interface=127.0.0.1"]
    pidfile.write_text(str(os.getpid()))  # alive, and no gateway
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: " serves on " in log.read_text(), "it serves")
        assert pidfile.read_text() == str(process.pid)
        second = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
        assert second.returncode == 1
        assert f"Another twistd server is running, PID {process.pid}" in second.stderr
        assert pidfile.read_text() == str(process.pid)
    finally:
        process.kill()
        process.wait()


def test_a_start_over_an_empty_pidfile_writes_its_own(tmp_path: Path, config: Path) -> None:
    config.write_text("[state]\ndir = 'state'\n")
    pidfile, log = tmp_path / "pid", tmp_path / "log"
    pidfile.write_bytes(b"")
    words = [tool("twistd"), "-n", f"--pidfile={pidfile}", "koder-gateway", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "--port", "tcp:0:interface=127.0.0.1"], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: " serves on " in log.read_text(), "it serves")
        assert pidfile.read_text() == str(process.pid)
        assert log.read_text().count(": named no running process, and is replaced\n") == 1
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", [("-n", "--pidfile=/proc/gateway.pid"), ("--pid", "/proc/gateway.pid"), ()])
def test_files_that_twistd_cannot_write_are_a_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("twistd"), *words, "koder-gateway", "--demo"],
        cwd="/proc",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert_refused(done, r"/proc/gateway\.pid: the pidfile .*" if words else r"/proc/twistd\.log: the log .*")


def until_connected(port: int) -> socket.socket:
    """A connection to a port that is about to be listened on."""

    def connect() -> socket.socket | None:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        return None

    connection: socket.socket = until(connect, f"port {port} takes connections")
    return connection


def test_systemd_is_told_of_start_reload_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, Origin() as origin:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with start(tmp_path, origin) as gateway:
            assert told.recv(4096).startswith(b"READY=1\n")
            with gateway.connect() as client:
                assert client.ask("GET", "/a").status == 200
            gateway.signal(signal.SIGHUP)
            assert told.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert told.recv(4096).startswith(b"READY=1\n")
            gateway.signal(signal.SIGTERM)
            assert told.recv(4096).startswith(b"STOPPING=1")
            assert gateway.process.wait(PATIENCE) == 0


@contextlib.contextmanager
def demo(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """The demo on ports that are free, and the lines that it offers."""
    with (folder / "demo.log").open("w") as log:
        process = subprocess.Popen(
            [tool("twistd"), "--nodaemon", "--pidfile=", "koder-gateway", "--demo", *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state"), "STATE_DIRECTORY": str(folder / "state")},
        )
    try:

        def lines() -> list[str]:
            text = (folder / "demo.log").read_text()
            assert process.poll() is None, text
            return re.findall(r"^  (curl .*)$", text, re.MULTILINE)

        yield process, until(lambda: len(lines()) == 3 and lines(), "the demo offers three lines")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    assert "Traceback" not in (folder / "demo.log").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("port", [GatewayProcess.TLS, GatewayProcess.PLAIN], ids=["tls", "plain"])
def test_the_demo_s_three_lines_work_as_they_are_printed(tmp_path: Path, port: str) -> None:
    with demo(tmp_path, "--port", port) as (process, lines):
        users, discovery, preflight = [
            subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE)
            for line in lines
        ]
        assert (users.returncode, discovery.returncode, preflight.returncode) == (0, 0, 0)
        shown = json.loads(users.stdout)
        assert (shown["service"], shown["tenant"]) == ("identity", "acme")
        issuer = json.loads(discovery.stdout)["issuer"]
        assert issuer.startswith("https://globex.id.localhost")
        assert preflight.stdout.startswith(("HTTP/1.1 204 ", "HTTP/2 204 "))
        assert "access-control-allow-origin: https://app.example.com" in preflight.stdout.lower()
        # A suspended tenant, and an address in the place of the base domain.
        url = shlex.split(lines[0])[-1]
        closed = curl(url.replace("//acme.", "//closed."))
        assert json.loads(closed)["code"] == "tenant_suspended"
        local = re.sub(r"//[^:/]+", "//127.0.0.1", url)
        assert json.loads(curl(local))["code"] == "tenant_required"
        assert json.loads(curl("-H", "X-Tenant-ID: acme", local))["tenant"] == "acme"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def curl(*words: str) -> str:
    done = subprocess.run(["curl", "-sk", *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_on_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        assert_refused(attempt("--demo", "--port", endpoint), rf'endpoint "{endpoint}": .*in use.*')


# What it must live through.


STORM_LIMITS = '[[limits]]\nname = "each"\nkey = ["ip"]\nrate = "1000/s"\nburst = 1000\n'


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_after_a_storm_everything_is_back_at_zero(tmp_path: Path, reactor: str) -> None:
    """Thousands of clients that break off in every phase, at services that die in every phase."""
    deaths: list[Callable[[Peer], object]] = [
        lambda peer: None,
        lambda peer: peer.reset(),
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        lambda peer: peer.send(b"garbage\r\n\r\n"),
        lambda peer: (peer.send(b"HTTP/1.1 200 OK\r\n"), peer.reset()),
        lambda peer: peer.send(answer(b"z" * 200_000)),
        lambda peer: peer.until_gone(),
    ]

    def play(peer: Peer, number: int) -> None:
        received = peer.head()
        if received is not None and number % 3:
            peer.body(received)
            peer.send(answer(b"fine"))
            received = peer.head()
        if received is not None:
            deaths[number % len(deaths)](peer)

    sections = {"timeouts": {"linger": "500ms", "response": "500ms", "head": "2s"}}
    with Origin(play) as origin, Origin() as sane:
        config = configuration({"a": origin.url, "sane": sane.url}, sections, STORM_LIMITS)
        with GatewayProcess(tmp_path, config, ports=BOTH, reactor=reactor) as gateway:
            with ThreadPoolExecutor(8) as pool:
                for each in [pool.submit(storm, gateway, seed, 150) for seed in range(16)]:
                    each.result(60)
            with gateway.connect() as client:
                assert client.ask("GET", "/sane").body == b"/sane fresh"
            # Clients that have only ended their side are still answered.
            until(lambda: gateway.metrics()[IN_FLIGHT] == 0, "no request is in flight")
            origin.hang_up()
            sane.hang_up()
            leftover = {
                IN_FLIGHT: 0,
                OPEN: 0,
                "koder_gateway_limit_entries": 0,
                **{
                    f'koder_gateway_upstream_connections{{service="{name}",state="{state}"}}': 0
                    for name in ("a", "sane")
                    for state in ("idle", "active")
                },
            }

            def left() -> dict[str, float]:
                metrics = gateway.metrics()
                return {name: metrics[name] for name in leftover}

            with contextlib.suppress(AssertionError):
                until(lambda: left() == leftover, "everything is at zero")
            assert left() == leftover
            metrics = gateway.metrics()
            # The kernel takes some that have gone before they are accepted.
            assert metrics["koder_gateway_connections_total"] > 1000
            # Descriptors: two ports, the admin port and its client, logs, the reactor's own.
            assert len(os.listdir(f"/proc/{gateway.pid}/fd")) < 40


def storm(gateway: GatewayProcess, seed: int, count: int) -> None:
    """Clients, each of which breaks off somewhere else; every address is another bucket."""
    post = request("POST", "/a", body=b"z" * 1000)
    messages = [
        b"",
        b"G",
        request("GET", "/a")[:30],
        request("GET", "/a"),
        post[:-500],
        post,
        request("GET", "/a") * 3,
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ]
    for turn in range(count):
        number = seed * count + turn
        with socket.socket() as bare:
            bare.settimeout(PATIENCE)
            bare.bind((f"127.1.{number % 200 + 1}.{number // 200 + 1}", 0))
            tls = number % 10 == 0
            bare.connect(("127.0.0.1", gateway.ports[int(tls or number % 11 == 0)]))
            connection = gateway.trust().wrap_socket(bare, server_hostname=HOST) if tls else bare
            client = Client(connection)
            with contextlib.suppress(OSError):
                client.send(messages[number % len(messages)])
                if number % 4 == 1:
                    select.select([connection], [], [], 0.05)
            if number % 2:
                client.abort()
            else:
                client.close()


@pytest.mark.parametrize("reactor", ["uvloop", "epoll"])
def test_out_of_descriptors_accepting_pauses_and_resumes(tmp_path: Path, reactor: str) -> None:
    with Origin() as origin:
        sections = {"listen": {"max_connections": 100_000}}
        config = configuration({"a": origin.url}, sections)
        with GatewayProcess(tmp_path, config, reactor=reactor, open_files=100, admin=False) as gateway:
            with gateway.connect() as early, contextlib.ExitStack() as crowd:
                assert early.ask("GET", "/a").status == 200
                for _ in range(300):
                    crowd.enter_context(gateway.connect())
                until(lambda: len(os.listdir(f"/proc/{gateway.pid}/fd")) >= 90, "no descriptor is left")
                # Those that are in go on.
                for _ in range(20):
                    assert early.ask("GET", "/a").status == 200
                origin.hang_up()
                seen = early.ask("GET", "/a/again")
                assert seen.status in (200, 502, 503)

            def served() -> bool:
                # The gateway may not have noticed yet that the crowd has left. uvloop's ports let a client wait and
                # answer it; Twisted's own close whom they have no descriptor for (docs/transports.md).
                with gateway.connect() as client:
                    seen = client.ask("GET", "/a")
                assert seen.status in ((200, 503) if reactor == "uvloop" else (0, 200, 503)), seen
                return seen.body == b"/a fresh"

            until(served, "clients are served again")
            assert gateway.process.poll() is None


def test_more_clients_than_allowed_are_told(tmp_path: Path) -> None:
    settings = {"listen": {"max_connections": 5}, "shares": {"address": "100%", "tenant": "100%"}}
    with Origin() as origin, start(tmp_path, origin, settings) as gateway:
        with contextlib.ExitStack() as crowd:
            inside = [crowd.enter_context(gateway.connect()) for _ in range(5)]
            for client in inside:
                assert client.ask("GET", "/a").status == 200
            outside = crowd.enter_context(gateway.connect())
            seen = outside.read()
            assert (seen.status, seen.code, seen.get("connection")) == (503, "overloaded", "close")
            outside.assert_closed()
            for client in inside:
                assert client.ask("GET", "/a").status == 200
        until(lambda: gateway.metrics()[OPEN] == 0, "all have left")
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200


def test_a_service_takes_no_more_connections_than_allowed(tmp_path: Path) -> None:
    held = Held()
    with Origin(held.play) as origin:
        config = configuration({"a": ""}).replace('a = ""', f'a = {{ url = "{origin.url}", max_connections = 3 }}')
        config += '\n[shares]\naddress = "100%"\ntenant = "100%"\n'
        with GatewayProcess(tmp_path, config) as gateway, contextlib.ExitStack() as clients:
            inside = [clients.enter_context(gateway.connect()) for _ in range(3)]
            for client in inside:
                client.send(request("GET", "/a"))
            until(lambda: len(held.targets) == 3, "three are in flight")
            one_more = clients.enter_context(gateway.connect())
            seen = one_more.ask("GET", "/a")
            assert (seen.status, seen.code, seen.get("retry-after")) == (503, "overloaded", "1")
            held.release.set()
            for client in inside:
                assert client.read().status == 200
            assert one_more.ask("GET", "/a").status == 200


def test_a_stalled_tls_handshake_is_closed_at_the_deadline_of_a_head(tmp_path: Path) -> None:
    with Origin() as origin, start(tmp_path, origin, {"timeouts": {"head": "500ms"}}) as gateway:
        stalled = [Client(socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE)) for _ in range(50)]
        for number, client in enumerate(stalled):
            client.send(b"\x16\x03\x01\x02\x00\x01"[: number % 7])
        with gateway.connect(tls=True) as client:
            assert client.ask("GET", "/a").status == 200
        for client in stalled:
            client.rest()
            client.close()
        until(lambda: gateway.metrics()[OPEN] == 0, "all are gone")
