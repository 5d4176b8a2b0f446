"""Several workers as their operator has them: started, killed, reloaded and stopped."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koder_gateway.ops.control_socket import Refused, ask_reload
from tests.kit.authority import write_certificate
from tests.kit.clients import HOST, request
from tests.kit.gateways import GatewayProcess, configuration, tool
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

ROOT = Path(__file__).parents[2]
BOTH = (GatewayProcess.PLAIN, GatewayProcess.TLS)
WORKERS = {"listen": {"workers": 2}, "limits_store": {"url": "memory:"}}
READY = "koder_gateway_workers_ready"
REQUESTS = 'koder_gateway_requests_total{service="a",status="2xx"}'
OPEN = "koder_gateway_connections_open"


def configured(url: str, **sections: dict[str, Any]) -> str:
    """A configuration for two workers, with one service at /a."""
    return configuration({"a": url}, {**WORKERS, **sections})


@contextlib.contextmanager
def supervised(folder: Path, url: str, **options: Any) -> Iterator[GatewayProcess]:
    """A gateway with two workers, once both serve."""
    options.setdefault("ports", BOTH)
    with GatewayProcess(folder, configured(url), **options) as gateway:
        until(lambda: gateway.metrics()[READY] == 2, "both workers are ready")
        yield gateway


def state(gateway: GatewayProcess) -> Any:
    """What /status says, of whichever worker it meets."""
    return json.loads(gateway.ask_admin("/status")[1])


def gone(pid: int) -> bool:
    """Whether that process has ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def until_replaced(gateway: GatewayProcess, *ended: int) -> None:
    """Wait until others serve in the place of these workers."""
    until(
        lambda: not set(ended) & set(gateway.workers) and gateway.metrics().get(READY) == 2,
        "they are replaced",
    )


def test_both_serve_and_their_metrics_are_one(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        first, second = gateway.workers
        with contextlib.ExitStack() as clients:
            for number in range(100):
                client = clients.enter_context(gateway.connect(tls=number % 2 == 1))
                assert client.ask("GET", "/a").status == 200
            connections = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (first, second)]
            assert min(connections) > 20, "each has a part of them"
            until(lambda: gateway.metrics()[OPEN] == 100, "all are counted")
        until(lambda: gateway.metrics()[REQUESTS] == 100, "all are counted")
        assert gateway.metrics()["koder_gateway_workers"] == 2
        status = state(gateway)
        assert status["requests"]["total"] == 100
        assert [(each["number"], each["pid"], each["ready"]) for each in status["workers"]] == [
            (1, first, True),
            (2, second, True),
        ]
        until(lambda: len(gateway.access()) == 100, "each has its line")
        assert {line["worker"] for line in gateway.access()} == {1, 2}
        assert gateway.workers == [first, second]


def test_the_limits_of_both_are_one(tmp_path: Path) -> None:
    limit = '[[limits]]\nname = "tried"\nkey = ["ip"]\nrate = "3/d"\nmode = "shadow"'
    with Origin() as origin:
        config = configuration({"a": origin.url}, WORKERS, limit)
        with GatewayProcess(tmp_path, config, ports=BOTH) as gateway:
            until(lambda: gateway.metrics()[READY] == 2, "both workers are ready")
            with contextlib.ExitStack() as clients:
                for number in range(60):
                    client = clients.enter_context(gateway.connect(tls=number % 2 == 1))
                    assert client.ask("GET", "/a").status == 200
            until(lambda: {line["worker"] for line in gateway.access()} == {1, 2}, "both have served")

            def rule() -> Any:
                (found,) = json.loads(gateway.ask_admin("/limits")[1])["rules"]
                return found

            # Each worker answers now and then, and none of them for itself alone.
            until(lambda: rule()["admitted"] == 6, "three in each worker")
            for _ in range(20):
                seen = rule()
                assert (seen["admitted"], seen["would_have_refused"], seen["entries"]) == (6, 54, 2)
                assert [use["key"] for use in seen["over"]] == [{"ip": "127.0.0.1"}]
                assert seen["near"] == []
            (shown,) = state(gateway)["limits"]["rules"]
            assert (shown["would_have_refused"], shown["over"]) == (54, seen["over"])


def test_sigusr1_reaches_every_worker(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
        with contextlib.ExitStack() as clients:
            for _ in range(40):
                assert clients.enter_context(gateway.connect()).ask("GET", "/a").status == 200
            until(lambda: len(gateway.access()) == 40, "each has its line")
            log.rename(moved)
            gateway.signal(signal.SIGUSR1)

            def held() -> set[str]:
                links = (link for pid in gateway.workers for link in Path(f"/proc/{pid}/fd").iterdir())
                return {os.readlink(link) for link in links if link.exists()}

            until(lambda: str(log) in held() and str(moved) not in held(), "every worker has the new file")
        assert len(moved.read_text().splitlines()) == 40


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_session_is_resumed_by_whichever_worker_it_meets(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Also by one that was started later."""
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        trust = ssl.create_default_context(cafile=str(gateway.certificate))
        trust.minimum_version = trust.maximum_version = version

        def ask(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
            with (
                socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE) as connection,
                trust.wrap_socket(connection, server_hostname=HOST, session=session) as secure,
            ):
                secure.sendall(request("GET", "/a", "Connection: close"))
                while secure.recv(65536):
                    pass
                return secure.session_reused, secure.session

        reused, session = ask(None)
        assert not reused
        assert [ask(session)[0] for _ in range(30)] == [True] * 30
        killed = gateway.workers
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until_replaced(gateway, *killed)
        assert [ask(session)[0] for _ in range(30)] == [True] * 30


def test_a_killed_worker_is_replaced_and_new_connections_lose_nothing(tmp_path: Path) -> None:
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        for _ in range(20):
            with gateway.connect() as client:
                assert client.ask("GET", "/a").status == 200
        until(lambda: gateway.metrics()[REQUESTS] == 20, "all are counted")
        for killed in gateway.workers:
            os.kill(killed, signal.SIGSTOP)
            os.kill(killed, signal.SIGKILL)
            until_replaced(gateway, killed)
            assert gateway.metrics()[REQUESTS] == 20, "its counters stay"
        for _ in range(20):
            with gateway.connect() as client:
                assert client.ask("GET", "/a").status == 200
        assert gateway.metrics()["koder_gateway_worker_restarts_total"] == 2
        assert gateway.log().count("was killed by SIGKILL; it is started again") == 2


def test_workers_that_end_while_the_supervisor_is_stopped_are_replaced(tmp_path: Path) -> None:
    """It then learns of each end twice at once: by SIGCHLD, and by the worker's channel."""
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
        killed = gateway.workers
        os.kill(gateway.pid, signal.SIGSTOP)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
            until(functools.partial(gone, pid), "it has ended")
        os.kill(gateway.pid, signal.SIGCONT)
        until_replaced(gateway, *killed)
        with gateway.connect() as client:
            assert client.ask("GET", "/a").status == 200


def test_connections_in_the_queue_outlive_the_workers(tmp_path: Path) -> None:
    """No worker accepts: they are stopped, and then killed. The queue is the socket's, which the supervisor has."""
    with Origin() as origin, supervised(tmp_path, origin.url) as gateway, contextlib.ExitStack() as clients:
        stopped = gateway.workers
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        waiting = [clients.enter_context(gateway.connect()) for _ in range(10)]
        for client in waiting:
            client.send(request("GET", "/a"))
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        assert [client.read().status for client in waiting] == [200] * 10


def test_a_worker_that_ends_in_order_is_replaced(tmp_path: Path) -> None:
    held = threading.Event()

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            assert held.wait(PATIENCE)
            peer.send(answer(received.target))

    with Origin(play) as origin, supervised(tmp_path, origin.url) as gateway, gateway.connect() as client:
        client.send(request("GET", "/a"))
        until(lambda: gateway.metrics()["koder_gateway_exchanges_in_flight"] == 1, "it is in flight")
        before = gateway.workers
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            # Asked twice, as by a systemd that tells every process of a unit.
            os.kill(pid, signal.SIGTERM)
        held.set()
        assert client.read().status == 200
        until_replaced(gateway, *before)


def test_the_workers_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    with Origin() as origin:
        with contextlib.suppress(AssertionError), supervised(tmp_path, origin.url) as gateway:
            workers = gateway.workers
            gateway.process.kill()
            until(lambda: all(gone(pid) for pid in workers), "they have ended too")
        assert gateway.log().count("the supervisor has ended, and so does this worker") == 2
        assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_waits_for_what_is_in_flight_in_every_worker(tmp_path: Path, number: int) -> None:
    held = threading.Event()
    asked: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            asked.append(received.target)
            assert held.wait(PATIENCE)
            peer.send(answer(received.target))

    with (
        Origin(play) as origin,
        supervised(tmp_path, origin.url) as gateway,
        contextlib.ExitStack() as clients,
    ):
        asking = [clients.enter_context(gateway.connect(tls=n % 2 == 1)) for n in range(20)]
        for client in asking:
            client.send(request("GET", "/a"))
        until(lambda: len(asked) == 20, "all have reached the service")
        workers = gateway.workers
        gateway.signal(number)
        until(lambda: not _listens(gateway.ports[0]), "nobody listens any more")
        held.set()
        for client in asking:
            seen = client.read()
            assert (seen.status, seen.get("connection")) == (200, "close")
        assert gateway.process.wait(PATIENCE) == 0
        assert all(gone(pid) for pid in workers)
        assert len(gateway.access()) == 20


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionError:
        return False
    return True


def test_who_asks_twice_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    held = threading.Event()

    def play(peer: Peer, number: int) -> None:
        peer.head()
        held.wait(PATIENCE)

    with Origin(play) as origin, supervised(tmp_path, origin.url) as gateway, gateway.connect() as client:
        client.send(request("GET", "/a"))
        until(lambda: gateway.metrics()["koder_gateway_exchanges_in_flight"] == 1, "it is in flight")
        gateway.signal(signal.SIGTERM)
        until(lambda: not _listens(gateway.ports[0]), "it ends")
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE) == 1
        held.set()


# Reloads.


def reload(gateway: GatewayProcess, config: str, says: str) -> None:
    before = gateway.log().count(says)
    gateway.config.write_text(config)
    gateway.signal(signal.SIGHUP)
    until(lambda: gateway.log().count(says) > before, f"the supervisor says {says}")


def test_a_reload_is_done_by_every_worker_or_by_none(tmp_path: Path) -> None:
    with contextlib.ExitStack() as clients:
        old = clients.enter_context(Origin())
        new = clients.enter_context(Origin(lambda peer, number: peer.serve(b"new")))
        with supervised(tmp_path, old.url) as gateway:
            asking = [clients.enter_context(gateway.connect()) for _ in range(20)]
            assert {client.ask("GET", "/a").body for client in asking} == {b"/a fresh"}
            reload(gateway, configured(new.url), "reloaded by all workers")
            assert {client.ask("GET", "/a").body for client in asking} == {b"/a new"}
            assert state(gateway)["reloads"]["last"]["accepted"]
            reload(gateway, configured(old.url, tenants={"refresh": 1}), "reload refused")
            assert "koder-gateway: reload refused, nothing has changed: " in gateway.log()
            assert "tenants.refresh: " in gateway.log()
            reloads = state(gateway)["reloads"]
            assert (reloads["accepted"], reloads["refused"]) == (1, 1)
            metrics = gateway.metrics()
            assert [metrics[f'koder_gateway_reloads_total{{result="{each}"}}'] for each in ("ok", "failed")] == [1, 1]
            assert metrics["koder_gateway_config_last_reload_successful"] == 0
            assert "tenants.refresh: " in reloads["last"]["faults"][0]
            assert {client.ask("GET", "/a").body for client in asking} == {b"/a new"}
            # Whoever starts now serves what is in force, not what the file says.
            pid = gateway.workers[0]
            os.kill(pid, signal.SIGKILL)
            until_replaced(gateway, pid)
            until(
                lambda: {each["restarts"] for each in state(gateway)["workers"]} == {0, 1},
                "it counts as started again",
            )
            for _ in range(20):
                with gateway.connect() as client:
                    assert client.ask("GET", "/a").body == b"/a new"


def test_a_worker_that_refuses_alone_is_named_with_what_it_means(tmp_path: Path) -> None:
    """It stands still while the other one reloads, and then reads a file that has changed again."""
    told: list[Refused | None] = []
    with contextlib.ExitStack() as origins:
        old = origins.enter_context(Origin())
        new = origins.enter_context(Origin(lambda peer, number: peer.serve(b"new")))
        with supervised(tmp_path, old.url) as gateway:
            late = gateway.workers[1]
            os.kill(late, signal.SIGSTOP)
            try:
                gateway.config.write_text(configured(new.url))
                asking = threading.Thread(target=lambda: told.append(ask_reload(gateway.pid)))
                asking.start()

                def reloaded() -> bool:
                    with gateway.connect() as client:
                        return client.ask("GET", "/a").body == b"/a new"

                until(reloaded, "the other one has reloaded")
                gateway.config.write_text(configured(new.url, tenants={"refresh": 1}))
            finally:
                os.kill(late, signal.SIGCONT)
            asking.join(PATIENCE)
            ((lines, partly),) = (each for each in told if each is not None)
            assert partly
            (line,) = lines
            assert line.startswith(f"worker 2 (process {late}): ")
            assert "tenants.refresh: " in line
            assert "; it serves the previous configuration, the other workers the new one; " in line
            assert f"koder-gateway: reload refused in part: {line}\n" in gateway.log()
            assert "reload refused, nothing has changed: worker" not in gateway.log()
            os.kill(late, signal.SIGKILL)
            until_replaced(gateway, late)
            for _ in range(20):
                assert reloaded()


def test_a_hangup_before_anybody_serves_is_done_after(tmp_path: Path) -> None:
    write_certificate(tmp_path / "certs", "id.test")
    pipe, log = tmp_path / "koder-gateway.toml", tmp_path / "gateway.log"
    os.mkfifo(pipe)
    text = configured("http://127.0.0.1:9")
    words = [tool("koder-gateway"), "run", "--config", str(pipe), "--port", GatewayProcess.PLAIN]
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        with pipe.open("w") as file:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
            file.write(text)
        # The supervisor reads it once more, and then each worker.
        file_of_all = tmp_path / "whole.toml"
        file_of_all.write_text(text)
        file_of_all.replace(pipe)
        until(lambda: "reloaded by all workers" in log.read_text(), "it is done")
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


# What systemd sees.


def test_ready_is_said_once_all_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Origin() as origin, supervised(tmp_path, origin.url) as gateway:
            assert notices.recv(4096) == b"READY=1\nSTATUS=serving with 2 of 2 workers"
            reload(gateway, configured(origin.url), "reloaded by all workers")
            assert notices.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notices.recv(4096) == b"READY=1\nSTATUS=serving with 2 of 2 workers"
            reload(gateway, "[nonsense", "reload refused")
            assert notices.recv(4096).startswith(b"RELOADING=1\n")
            assert notices.recv(4096) == b"READY=1\nSTATUS=reload refused; serving the previous configuration"
            assert gateway.stop() == 0
            assert notices.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("how", ["index=0", "name=https"])
def test_all_accept_on_a_socket_of_systemds(tmp_path: Path, how: str) -> None:
    with Origin() as origin, socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        ports = (f"tls+systemd:domain=INET:{how}",)
        with supervised(tmp_path, origin.url, ports=ports, inherited=listening) as gateway:
            for pid in gateway.workers:
                with gateway.connect(tls=True) as client:
                    assert client.ask("GET", "/a").status == 200
                os.kill(pid, signal.SIGKILL)
                until_replaced(gateway, pid)
        # After the end connections wait for the next process.
        with socket.create_connection(listening.getsockname()) as client:
            listening.accept()[0].close()


def test_unix_sockets_and_the_proxy_header_work(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    with Origin() as origin:
        ports = (f"unix:{path}", "haproxy:tcp:0:interface=127.0.0.1")
        with supervised(tmp_path, origin.url, ports=ports) as gateway:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(request("GET", "/a", "Connection: close"))
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
            with gateway.connect(0) as client:
                client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n" + request("GET", "/a"))
                assert client.read().status == 200
            until(lambda: [line["client"] for line in gateway.access()][-1:] == ["192.0.2.7"], "the line is written")
        assert not path.exists()
        assert not path.with_name("gateway.sock.lock").exists()


# Starts that fail.


def failed(folder: Path, config: str, *words: str, command: tuple[str, ...] = ("koder-gateway", "run")) -> str:
    """What a start says that ends with exit code 1."""
    write_certificate(folder / "certs", "id.test")
    path = folder / "koder-gateway.toml"
    path.write_text(config)
    done = subprocess.run(
        [tool(command[0]), *command[1:], "--config", str(path), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done.stderr


def test_limits_in_memory_are_refused_unless_they_are_meant(tmp_path: Path) -> None:
    limits = '[[limits]]\nname = "traffic"\nkey = ["ip"]\nrate = "10/s"'
    alone = configuration({"a": "http://127.0.0.1:9"}, extra=limits)
    said = failed(tmp_path, alone, "--workers", "2")
    assert said.count("\n") == 1
    assert said.startswith("koder-gateway: --workers 2: several workers count limits each by itself")
    assert 'limits_store.url = "memory:"' in said
    config = configuration({"a": "http://127.0.0.1:9"}, {"listen": {"workers": "auto"}}, limits)
    said = failed(tmp_path, config)
    assert said.count("\n") == 1
    assert f"{tmp_path}/koder-gateway.toml: listen.workers: several workers count limits" in said
    done = subprocess.run(
        [tool("koder-gateway"), "check", str(tmp_path / "koder-gateway.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, said.replace("koder-gateway: ", "", 1))


def test_without_limits_nothing_is_counted_and_the_store_need_not_be_named(tmp_path: Path) -> None:
    config = configuration({"a": "http://127.0.0.1:9"}, {"listen": {"workers": 2}})
    with GatewayProcess(tmp_path, config) as gateway:
        until(lambda: gateway.metrics().get(READY) == 2, "both workers are ready")


def test_a_taken_port_is_said_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        said = failed(tmp_path, configured("http://127.0.0.1:9"), "--port", text)
    assert said.count("\n") == 1
    assert said.startswith(f'koder-gateway: endpoint "{text}": cannot listen: ')


def test_a_fault_that_a_worker_meets_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "access.log").mkdir()
    said = failed(tmp_path, configured("http://127.0.0.1:9"), "--port", GatewayProcess.PLAIN)
    assert said.count("\n") == 1
    assert ": log.file: " in said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("twistd", "koder-gateway"), "the supervisor stays in the foreground; write `twistd -n`"),
        (("twistd", "-n", "--reactor=epoll", "koder-gateway"), "leave --reactor out"),
        (("twistd", "-n", "--logfile=LOG", "koder-gateway"), "cannot rotate one --logfile"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(tmp_path: Path, command: tuple[str, ...], says: str) -> None:
    words = tuple(word.replace("LOG", str(tmp_path / "log")) for word in command)
    said = failed(tmp_path, configured("http://127.0.0.1:9"), command=words)
    assert said.count("\n") == 1
    assert says in said


DIES = """
import os, signal, sys
from koder_gateway.service.gateway import Gateway
Gateway.startService = lambda gateway: os.kill(os.getpid(), signal.SIGKILL)
from koder_gateway.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_workers_that_die_at_once_end_the_gateway_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "koder-gateway.toml"
    path.write_text(configured("http://127.0.0.1:9"))
    write_certificate(tmp_path / "certs", "id.test")
    done = subprocess.run(
        [sys.executable, "-c", DIES, "--config", str(path), "--port", GatewayProcess.PLAIN],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    # What the supervisor says; the events of the workers have a time before them.
    said = [line for line in done.stderr.splitlines() if line.startswith("koder-gateway: ")]
    lines = [re.sub(r"process [0-9]+", "process N", line) for line in said]
    died = "koder-gateway: worker 1 (process N) was killed by SIGKILL before it was ready; it"
    pauses = [f"{died} is started again in {pause} s" for pause in ("0.1", "0.2", "0.4", "0.8", "1.6")]
    assert lines == [*pauses, f"{died} dies again and again, so the gateway ends"]


def test_a_pidfile_is_the_supervisors(tmp_path: Path) -> None:
    pidfile, log = tmp_path / "pid", tmp_path / "log"
    path = tmp_path / "koder-gateway.toml"
    path.write_text(configured("http://127.0.0.1:9"))
    write_certificate(tmp_path / "certs", "id.test")
    words = [tool("twistd"), "-n", f"--pidfile={pidfile}", "koder-gateway", "--config", str(path)]
    with log.open("wb") as output:
        process = subprocess.Popen([*words, "--port", GatewayProcess.PLAIN], stdout=output, stderr=output)
    try:
        until(lambda: log.read_text().count(" serves on ") == 2 or process.poll() is not None, "both serve")
        assert pidfile.read_text() == str(process.pid)
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
        assert not pidfile.exists()
    finally:
        process.kill()
        process.wait()
