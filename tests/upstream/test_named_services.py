"""A service behind a name with several addresses: they change, go away, and come from a silent name server."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.clients import request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin, Peer
from tests.kit.waiting import until

# The system's look-up, in a process that has this as its sitecustomize.py: of one name the addresses stand in a file
# beside it. As long as there is none, the look-up does not end.
LOOK_UP = """
import json, os, socket, threading
folder = os.path.dirname(__file__)
answer = socket.getaddrinfo
def ask(host, *rest, **more):
    if host != "service.names.test":
        return answer(host, *rest, **more)
    try:
        with open(os.path.join(folder, "addresses")) as file:
            found = json.load(file)
    except FileNotFoundError:
        with open(os.path.join(folder, "silent"), "a") as silent:
            silent.write("asked\\n")
        threading.Event().wait()
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in found]
socket.getaddrinfo = ask
"""


class Instance(Origin):
    """One instance of the service, at an address of its own."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(self._play, listening=False)
        self.socket.close()
        self.socket = socket.socket()
        self.socket.bind((host, port))
        self._host = host.encode()
        self.listen()

    def _play(self, peer: Peer, number: int) -> None:
        peer.serve(self._host)


def listen(hosts: list[str]) -> dict[str, Instance]:
    """An instance at each of these addresses, all on the same port."""
    made: dict[str, Instance] = {}
    port = 0
    for host in hosts:
        made[host] = Instance(host, port)
        port = made[host].socket.getsockname()[1]
    return made


class Named:
    """A gateway before a service with a name; `stand_for` says what that stands for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.site = folder / "site"
        self.site.mkdir()
        (self.site / "sitecustomize.py").write_text(LOOK_UP)
        self.instances = {
            host: stack.enter_context(instance)
            for host, instance in listen(["127.0.0.2", "127.0.0.3", "127.0.0.4"]).items()
        }
        self.port = self.instances["127.0.0.2"].socket.getsockname()[1]
        self.stand_for("127.0.0.2", "127.0.0.3")
        config = configuration({"named": f"http://service.names.test:{self.port}"})
        self.gateway = stack.enter_context(GatewayProcess(folder, config))

    def stand_for(self, *hosts: str) -> None:
        """What the next look-up brings; none: it does not end."""
        ready = self.site / "ready"
        if hosts:
            ready.write_text(json.dumps(hosts))
            ready.replace(self.site / "addresses")
        else:
            (self.site / "addresses").unlink()

    @property
    def unanswered(self) -> int:
        """How many look-ups do not end."""
        file = self.site / "silent"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def served_by(self, times: int = 8) -> set[str]:
        """Which instances serve so many requests, all of which succeed."""
        found = set()
        with self.gateway.connect() as client:
            for _ in range(times):
                client.send(request("GET", "/named"))
                answer = client.read()
                assert answer.status == 200
                found.add(answer.body.decode().split()[1])
        return found


@pytest.fixture
def make_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Named]]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    with ExitStack() as stack:
        yield lambda: Named(tmp_path, stack)


def test_the_addresses_of_a_name_are_followed(make_named: Callable[[], Named]) -> None:
    named = make_named()
    until(lambda: named.served_by() == {"127.0.0.2", "127.0.0.3"}, "both addresses serve")
    metrics = named.gateway.metrics()
    for host in ("127.0.0.2", "127.0.0.3"):
        address = f"http://{host}:{named.port}"
        assert metrics[f'koder_gateway_upstream_available{{address="{address}",service="named"}}'] == 1

    # One is gone, and another one has come: that is seen at once, and no request is lost.
    named.stand_for("127.0.0.3", "127.0.0.4")
    named.instances["127.0.0.2"].close()
    until(lambda: "127.0.0.4" in named.served_by(), "the new address serves")
    assert "127.0.0.2" not in named.served_by()

    # The name server is silent: what is known stays, and nothing else waits.
    named.stand_for()
    named.instances["127.0.0.4"].close()
    until(lambda: named.served_by() == {"127.0.0.3"} and named.unanswered > 0, "a look-up has begun")
    for _ in range(4):
        assert named.served_by() == {"127.0.0.3"}
    assert named.unanswered == 1, "there is one look-up at a time"
