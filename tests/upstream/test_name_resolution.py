"""Names of services: looked up ahead of time, for nobody but those who need them, and the last good ones kept."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from koder_gateway.upstream.name_resolution import RENEW, Found, NamedEndpoint, ResolvedNames, Unresolved, look_up
from tests.kit.authority import write_certificate
from tests.kit.clients import HOST
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin
from tests.kit.waiting import until

FIRST: Found = (IPv4Address, "192.0.2.1")
SECOND: Found = (IPv4Address, "192.0.2.2")
SIXTH: Found = (IPv6Address, "2001:db8::1")

# A name server that never answers for one domain, in a process that has this as its sitecustomize.py.
SILENT = """
import socket, threading
answer = socket.getaddrinfo
def ask(host, *rest, **more):
    if str(host).endswith(".silent.test"):
        threading.Event().wait()
    return answer(host, *rest, **more)
socket.getaddrinfo = ask
"""


class Network(Clock):
    """A reactor whose threads are played by hand, and whose connections wait to be made or refused."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.answers: list[Any] = []
        self.connecting: list[tuple[str, Any]] = []

    def look_up(self, host: str) -> Any:
        """The next answer, which an exception is as well; or none for now."""
        self.asked.append(host)
        answer: Any = self.answers.pop(0) if self.answers else Deferred()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connectTCP(self, host: str, port: int, factory: Any, *_: Any, **__: Any) -> Any:
        """See IReactorTCP."""
        self.connecting.append((host, factory))
        return self

    def stopConnecting(self) -> None:
        """See IConnector."""

    def refuse(self) -> None:
        """Refuse the oldest connection."""
        self.connecting.pop(0)[1].clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    @property
    def hosts(self) -> list[str]:
        """The addresses that are being connected to."""
        return [host for host, _ in self.connecting]


@pytest.fixture
def network() -> Network:
    return Network()


class Asked:
    """What becomes of a connection that is asked for."""

    def __init__(self, endpoint: NamedEndpoint) -> None:
        self.fault: Any = None
        endpoint.connect(Factory.forProtocol(Protocol)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.fault = failure.value


@pytest.fixture
def endpoint(network: Network) -> NamedEndpoint:
    return NamedEndpoint(network, ResolvedNames(network, network.look_up).named("a.test"), 80, 2.0)


def test_the_system_is_asked_for_both_families() -> None:
    assert set(look_up("localhost")) <= {(IPv4Address, "127.0.0.1"), (IPv6Address, "::1")}
    assert look_up("127.0.0.1") == ((IPv4Address, "127.0.0.1"),)
    with pytest.raises(socket.gaierror):
        look_up("nowhere.invalid")


def test_a_name_is_looked_up_ahead_of_time_and_again(network: Network) -> None:
    names = ResolvedNames(network, network.look_up)
    name = names.named("a.test")
    network.answers = [(FIRST,), (SECOND,)]
    names.sweep()
    names.sweep()
    assert (network.asked, name.known) == (["a.test"], (FIRST,))
    network.advance(RENEW)
    names.sweep()
    assert (len(network.asked), name.known) == (2, (SECOND,))
    assert names.named("a.test") is name
    del name
    network.advance(RENEW)
    names.sweep()
    assert len(network.asked) == 2, "nobody needs it any more"


def test_of_more_addresses_than_are_used_the_known_ones_stay(network: Network) -> None:
    names = ResolvedNames(network, network.look_up)
    name = names.named("a.test")
    many: tuple[Found, ...] = tuple((IPv4Address, f"192.0.2.{number}") for number in range(40))
    network.answers = [many, many[::-1], many[20:] + many[:14]]
    names.sweep()
    assert name.known == many[:16]
    network.advance(RENEW)
    names.sweep()
    assert set(name.known) == set(many[:16]), "a name server may send them in any order"
    network.advance(RENEW)
    names.sweep()
    assert set(name.known) == {*many[:14], *many[20:22]}, "others replace those that the name has no more"


def test_the_last_good_addresses_stay(network: Network, logged: Callable[[], list[str]]) -> None:
    names = ResolvedNames(network, network.look_up)
    name = names.named("a.test")
    network.answers = [(FIRST,), socket.gaierror(-3, "try again"), (), socket.gaierror(-3, "try again"), (SECOND,)]
    for _ in range(4):
        names.sweep()
        network.advance(RENEW)
        assert name.known == (FIRST,)
    names.sweep()
    assert name.known == (SECOND,)
    lines = logged()
    assert len(lines) == 4, lines
    assert "no address for a.test: try again; the previous addresses stay" in lines[0]
    assert "a.test has an address again" in lines[-1]


def test_a_known_name_is_connected_to_at_once(network: Network, endpoint: NamedEndpoint) -> None:
    network.answers = [(FIRST,)]
    Asked(endpoint)
    Asked(endpoint)
    assert network.hosts == ["192.0.2.1", "192.0.2.1"]
    assert network.asked == ["a.test"]


def test_nobody_waits_longer_for_a_name_server_than_for_a_connection(
    network: Network, endpoint: NamedEndpoint
) -> None:
    asked = [Asked(endpoint), Asked(endpoint)]
    network.advance(1.9)
    assert [each.fault for each in asked] == [None, None]
    network.advance(0.2)
    for each in asked:
        assert isinstance(each.fault, Unresolved)
        assert str(each.fault) == "no name server has answered for a.test within 2 seconds"
    late = Asked(endpoint)
    network.advance(0)
    assert late.fault is not None, "that look-up has lasted longer than that already"
    assert network.asked == ["a.test"]
    assert not network.getDelayedCalls()


def test_a_name_without_an_address_fails_and_is_asked_for_again(network: Network, endpoint: NamedEndpoint) -> None:
    network.answers = [socket.gaierror(-2, "not known"), (), (FIRST,)]
    for reason in ("not known", "it has no address"):
        assert str(Asked(endpoint).fault) == f"no address for a.test: {reason}"
    assert Asked(endpoint).fault is None
    assert network.hosts == ["192.0.2.1"]


def test_addresses_take_turns_and_all_of_them_have_one_deadline(network: Network, endpoint: NamedEndpoint) -> None:
    network.answers = [(SIXTH, FIRST)]
    asked = Asked(endpoint)
    network.advance(0.5)
    assert network.hosts == ["2001:db8::1", "192.0.2.1"]
    network.advance(2.0)
    assert isinstance(asked.fault, TimeoutError)


def test_the_address_that_took_the_last_connection_is_tried_first(network: Network, endpoint: NamedEndpoint) -> None:
    network.answers = [(SIXTH, FIRST), (SIXTH, FIRST)]
    Asked(endpoint)
    network.refuse()
    network.advance(0.3)
    assert network.hosts == ["192.0.2.1"]
    protocol = network.connecting.pop()[1].buildProtocol(None)
    protocol.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 80)))
    Asked(endpoint)
    assert network.hosts == ["192.0.2.1"]


def test_an_address_that_refuses_has_its_name_looked_up_at_once(network: Network, endpoint: NamedEndpoint) -> None:
    network.answers = [(FIRST,), (SECOND,)]
    Asked(endpoint)
    network.advance(1.5)
    network.refuse()
    assert network.asked == ["a.test"] * 2
    Asked(endpoint)
    assert network.hosts == ["192.0.2.2"]


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """The events that are logged meanwhile."""
    from twisted.logger import formatEvent, globalLogPublisher

    lines: list[str] = []

    def note(event: Any) -> None:
        lines.append(str(formatEvent(event)))

    globalLogPublisher.addObserver(note)
    yield lambda: lines
    globalLogPublisher.removeObserver(note)


def test_a_name_server_that_does_not_answer_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither other services, nor the registry, nor certificates, nor the end of the process."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SILENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    registry = tmp_path / "tenants.toml"
    registry.write_text('[[tenant]]\nslug = "acme"\n')
    with Origin() as origin:
        services = {"away": "http://service.silent.test:80", "here": f"http://localhost:{origin.port}"}
        text = configuration(
            services,
            {"tenants": {"registry": "tenants.toml", "refresh": "100ms"}, "timeouts": {"connect": "1s"}},
        )
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        with GatewayProcess(tmp_path, text, ports=ports) as gateway:
            waiting = [gateway.connect() for _ in range(40)]
            for client in waiting:
                client.send(b"GET /away HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST.encode())
            with gateway.connect() as client:
                assert client.ask("GET", "/here").status == 200
            registry.write_text('[[tenant]]\nslug = "acme"\n[[tenant]]\nslug = "more"\n')
            write_certificate(tmp_path / "certs", "id.test", HOST)
            until(lambda: "registry read again: 2 tenants" in gateway.log(), "the registry is read")
            until(lambda: "certificates read again" in gateway.log(), "the certificate is read")
            for client in waiting:
                answer = client.read()
                assert (answer.status, answer.code) == (502, "upstream_unreachable")
                client.close()
            assert "no name server has answered for service.silent.test within 1 seconds" in gateway.log()
