"""Listening: endpoint strings to ports, every fault in a line of its own, and nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from zope.interface import implementer

from koder_gateway.listening.listeners import ListenError, Listeners, plain_endpoint

FACTORY = Factory.forProtocol(Protocol)
FACTORY.noisy = False
LOOPBACK = "tcp:0:interface=127.0.0.1"


@implementer(IListeningPort)
class Port:
    """A port that is closed when `closed` fires."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed: Deferred[None] | None = Deferred()
        self.stopped = 0

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def startListening(self) -> None:
        raise AssertionError("endpoints do that")

    def stopListening(self) -> Deferred[None] | None:
        self.stopped += 1
        return self.closed


@implementer(IStreamServerEndpoint)
class Endpoint:
    """Listens as it is told."""

    def __init__(self, result: Callable[[], Deferred[IListeningPort]]) -> None:
        self._result = result
        self.factories: list[IProtocolFactory] = []

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        self.factories.append(factory)
        return self._result()


def listeners_of(*ports: Port) -> Listeners:
    """Listeners that listen on these, whatever is asked for."""
    waiting = iter(ports)
    made = Listeners(lambda text: Endpoint(lambda: succeed(next(waiting))))
    assert made.bind(["any"] * len(ports), FACTORY) == []
    return made


def numbers(made: Listeners) -> list[int]:
    return [address.port for address in made.addresses]


# -- binding


def test_every_port_serves_the_factory() -> None:
    endpoints: dict[str, Endpoint] = {}

    def endpoint(text: str) -> Endpoint:
        port: Any = Port(int(text))
        return endpoints.setdefault(text, Endpoint(lambda: succeed(port)))

    made = Listeners(endpoint)
    assert made.addresses == []
    assert made.bind(["3", "1", "2"], FACTORY) == []
    assert numbers(made) == [3, 1, 2]
    assert [each.factories for each in endpoints.values()] == [[FACTORY]] * 3
    assert made.bind(["4"], FACTORY) == []
    assert numbers(made) == [3, 1, 2, 4]


def test_nothing_to_listen_on() -> None:
    made = Listeners(plain_endpoint(MemoryReactor()))
    assert made.bind([], FACTORY) == []
    assert made.addresses == []


def refuse_two(text: str) -> IStreamServerEndpoint:
    raise ListenError(f'endpoint "{text}": the first\nendpoint "{text}": the second')


def test_what_an_endpoint_says_of_itself_is_told_as_it_is() -> None:
    faults = Listeners(refuse_two).bind(["a", "b"], FACTORY)
    assert faults == [
        'endpoint "a": the first',
        'endpoint "a": the second',
        'endpoint "b": the first',
        'endpoint "b": the second',
    ]


@pytest.mark.parametrize(
    "text",
    ["nonsense:80", "tcp:abc", "tcp", "tcp:80:nonsense=1", "systemd:domain=INET:index=0", "systemd:x", ""],
)
def test_strings_that_are_no_endpoints(text: str) -> None:
    (fault,) = Listeners(plain_endpoint(MemoryReactor())).bind([text], FACTORY)
    assert fault.startswith(f'endpoint "{text}": ')
    assert fault.endswith('; write it as in "tcp:9090:interface=127.0.0.1"')
    assert "\n" not in fault


@pytest.mark.parametrize("key", ["missing.pem", "garbage.pem", ""], ids=["missing", "garbage", "a folder"])
def test_a_key_that_cannot_be_used_is_one_line(key: str, tmp_path: Path) -> None:
    (tmp_path / "garbage.pem").write_text("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n")
    text = f"ssl:0:interface=127.0.0.1:privateKey={tmp_path / key}"
    (fault,) = Listeners(plain_endpoint(MemoryReactor())).bind([text], FACTORY)
    assert fault.startswith(f'endpoint "{text}": ')
    assert "\n" not in fault


def test_a_fault_keeps_no_other_from_being_told() -> None:
    def endpoint(text: str) -> IStreamServerEndpoint:
        if text == "taken":
            return Endpoint(lambda: fail(CannotListenError("127.0.0.1", 80, OSError(98, "Address in use"))))
        if text == "raises":
            return Endpoint(lambda: (_ for _ in ()).throw(OverflowError("port must be 0-65535")))
        if text == "bad":
            raise ValueError("no such kind")
        port: Any = Port(7)
        return Endpoint(lambda: succeed(port))

    made = Listeners(endpoint)
    faults = made.bind(["bad", "good", "taken", "raises"], FACTORY)
    assert faults == [
        'endpoint "bad": no such kind; write it as in "tcp:9090:interface=127.0.0.1"',
        'endpoint "taken": cannot listen: ' + str(CannotListenError("127.0.0.1", 80, OSError(98, "Address in use"))),
        'endpoint "raises": cannot listen: port must be 0-65535',
    ]
    assert numbers(made) == [7], "for its owner to close"


def test_plain_endpoints_are_twisteds_own() -> None:
    memory = MemoryReactor()
    made = Listeners(plain_endpoint(memory))
    assert made.bind(["tcp:9090:interface=127.0.0.1:backlog=7", "unix:/run/admin"], FACTORY) == []
    assert memory.tcpServers == [(9090, FACTORY, 7, "127.0.0.1")]
    assert [server[0] for server in memory.unixServers] == ["/run/admin"]


# -- closing


def test_closed_means_that_every_port_is_closed() -> None:
    ports = [Port(1), Port(2)]
    made = listeners_of(*ports)
    done: list[object] = []
    made.close().addCallback(done.append)
    assert made.addresses == []
    assert [port.stopped for port in ports] == [1, 1]
    for port in ports:
        assert not done
        assert port.closed is not None
        port.closed.callback(None)
    assert len(done) == 1


def test_a_port_that_is_closed_at_once() -> None:
    port = Port(1)
    port.closed = None
    done: list[object] = []
    listeners_of(port).close().addCallback(done.append)
    assert len(done) == 1


def test_a_port_that_does_not_close_keeps_no_other_open() -> None:
    ports = [Port(1), Port(2)]
    assert ports[0].closed is not None
    assert ports[1].closed is not None
    ports[0].closed.errback(OSError("broken"))
    done: list[object] = []
    listeners_of(*ports).close().addCallback(done.append)
    assert not done
    assert ports[1].stopped == 1
    ports[1].closed.callback(None)
    assert len(done) == 1


def test_what_is_closed_is_not_closed_again() -> None:
    port = Port(1)
    made = listeners_of(port)
    made.close()
    done: list[object] = []
    made.close().addCallback(done.append)
    assert (port.stopped, len(done)) == (1, 1)


# -- over loopback


def connects(number: int) -> bool:
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", number)) == 0


@pytest_twisted.ensureDeferred
async def test_ports_are_open_until_they_are_closed() -> None:
    made = Listeners(plain_endpoint(reactor))
    assert made.bind([LOOPBACK, LOOPBACK], FACTORY) == []
    found = numbers(made)
    assert len(set(found)) == 2
    assert all(map(connects, found))
    await made.close()
    assert not any(map(connects, found))
    again = Listeners(plain_endpoint(reactor))
    assert again.bind([f"tcp:{number}:interface=127.0.0.1" for number in found], FACTORY) == []
    await again.close()


@pytest_twisted.ensureDeferred
async def test_ports_that_are_taken() -> None:
    made = Listeners(plain_endpoint(reactor))
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        texts = [f"tcp:{each.getsockname()[1]}:interface=127.0.0.1" for each in (one, other)]
        faults = made.bind([texts[0], LOOPBACK, texts[1]], FACTORY)
    assert len(faults) == 2
    for text, fault in zip(texts, faults, strict=True):
        assert fault.startswith(f'endpoint "{text}": cannot listen: ')
        assert "already in use" in fault
    (number,) = numbers(made)
    await made.close()
    assert not connects(number)
