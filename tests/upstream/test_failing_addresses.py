"""Services with two addresses of which one fails: a real gateway finds out which, for requests of several clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.kit.clients import HOST, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http1 import Message
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import until

CLIENTS = [f"127.0.0.{number}" for number in range(2, 10)]


def resets(peer: Peer, number: int) -> None:
    if peer.head() is not None:
        peer.reset()


def hangs(peer: Peer, number: int) -> None:
    peer.until_gone()


def errs(peer: Peer, number: int) -> None:
    while peer.head() is not None:
        peer.send(answer(b"oops", status="500 Internal Server Error"))


FAULTS: dict[str, Callable[[Peer, int], None]] = {"resets": resets, "hangs": hangs, "errs": errs}


class Failing:
    """A gateway, and for each fault a service of two addresses, `bad` and `good`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.bad = {name: stack.enter_context(Origin(play)) for name, play in FAULTS.items()}
        self.good = {name: stack.enter_context(Origin()) for name in FAULTS}
        self.down = stack.enter_context(Origin(errs))
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            self.closed = f"http://127.0.0.1:{closed.getsockname()[1]}"
        tables = [
            f'[services.{name}]\nurls = ["{self.bad[name].url}", "{self.good[name].url}"]\n'
            'response = "500ms"\neject_statuses = [500]\nslow_start = "0s"\n'
            for name in FAULTS
        ]
        health = '{ path = "/h", interval = "500ms", timeout = "500ms", unhealthy = 1 }'
        tables.append(f'[services.down]\nurl = "{self.down.url}"\nhealth = {health}\n')
        tables.append(f'[services.closed]\nurl = "{self.closed}"\n')
        routes = [f'[[routes]]\npath = "/{name}"\nservice = "{name}"\n' for name in (*FAULTS, "down", "closed")]
        self.gateway = stack.enter_context(
            GatewayProcess(folder, configuration({}, extra="\n".join([*tables, *routes])))
        )

    def ask(self, name: str, sources: list[str] = CLIENTS) -> list[Message]:
        """The responses to a request of each of these clients at once."""
        with ExitStack() as stack:
            clients = [stack.enter_context(self.gateway.connect(source=source)) for source in sources]
            for client in clients:
                client.send(request("GET", f"/{name}"))
            return [client.read() for client in clients]

    def ejections(self, name: str) -> float:
        return self.gateway.metrics()[f'koder_gateway_upstream_ejections_total{{service="{name}"}}']


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    with ExitStack() as stack:
        yield Failing(tmp_path_factory.mktemp("failing"), stack)


@pytest.mark.parametrize(("name", "status"), [("resets", 502), ("hangs", 504), ("errs", 500)])
def test_an_address_that_fails_for_several_clients_is_ejected(failing: Failing, name: str, status: int) -> None:
    seen: set[int] = set()

    def ejected() -> bool:
        # A response counts against an ejection: these are those of the other address.
        seen.update(response.status for response in failing.ask(name))
        return failing.ejections(name) > 0

    until(ejected, "the address that fails is ejected")
    assert seen == {200, status}
    assert f"service {name}: {failing.bad[name].url} gets no requests for " in failing.gateway.log()
    assert f"service {name}: {failing.good[name].url} gets no requests" not in failing.gateway.log()
    failing.bad[name].play = lambda peer, number: peer.serve(b"again")
    failing.bad[name].hang_up()
    until(lambda: any(b"again" in each.body for each in failing.ask(name)), "an address that recovers is used again")


def test_one_client_alone_cannot_have_an_address_ejected(failing: Failing) -> None:
    failing.bad["resets"].play = resets
    before = failing.ejections("resets")
    failing.bad["resets"].hang_up()
    lost: list[Message] = []

    def enough() -> bool:
        lost.extend(each for each in failing.ask("resets", [CLIENTS[0]] * 8) if each.status == 502)
        return len(lost) > 20

    until(enough, "many requests of the client fail")
    assert failing.ejections("resets") == before


def test_a_service_whose_probes_fail_is_503_with_retry_after(failing: Failing) -> None:
    until(lambda: failing.ask("down", CLIENTS[:1])[0].status == 503, "the probe has failed")
    (response,) = failing.ask("down", CLIENTS[:1])
    assert (response.status, response.code, response.values(b"Retry-After")) == (503, "overloaded", [b"1"])
    page = failing.gateway.ask_admin(f"/explain?{urlencode({'url': f'http://{HOST}/down'})}")[1]
    assert f"{failing.down.url} (out of use: its health probes fail)" in page
    assert "service down: no address is healthy, so requests are refused (503)" in failing.gateway.log()


def test_a_port_that_is_closed_is_502_each_time(failing: Failing) -> None:
    for _ in range(3):
        assert [(each.status, each.code) for each in failing.ask("closed")] == [(502, "upstream_unreachable")] * 8
