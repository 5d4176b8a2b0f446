"""Ports that are bound once, and accepted on by whoever has them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from koder_gateway.listening.both_families import BothFamiliesEndpoint
from koder_gateway.workers.bound_ports import InheritedPorts, PortBinder


class Adopting:
    """A reactor that says what it has been given."""

    def __init__(self) -> None:
        self.adopted: list[tuple[str, int]] = []

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> Any:
        with socket.fromfd(descriptor, family, socket.SOCK_STREAM) as copy:
            name = copy.getsockname()
        self.adopted.append((name, 0) if isinstance(name, str) else name[:2])

        class Port:
            shared = False

        return Port()


def listen(reactor: Any, text: str) -> Any:
    """What the endpoint of that string gives at once."""
    results: list[Any] = []
    serverFromString(reactor, text).listen(Factory()).addBoth(results.append)
    return results[0]


def test_each_endpoint_gets_the_socket_that_was_bound_for_it(tmp_path: Path) -> None:
    texts = [
        "tcp:0:interface=127.0.0.1",
        "tcp:0:interface=127.0.0.1",
        f"unix:{tmp_path}/s",
        "tcp6:0:interface=\\:\\:1",
    ]
    binder = PortBinder()
    hosts = [listen(binder, text).getHost() for text in texts]
    assert hosts[0].port != hosts[1].port
    reactor = Adopting()
    ports = [listen(InheritedPorts(reactor, bound), text) for bound in [list(binder.bound)] for text in texts[:1]]
    inherited = InheritedPorts(reactor, binder.bound[1:])
    ports += [listen(inherited, text) for text in texts[1:]]
    assert reactor.adopted == [
        ("127.0.0.1", hosts[0].port),
        ("127.0.0.1", hosts[1].port),
        (f"{tmp_path}/s", 0),
        ("::1", hosts[3].port),
    ]
    assert all(port.shared for port in ports)


def test_what_was_not_bound_is_a_fault() -> None:
    failure = listen(InheritedPorts(Adopting(), []), "tcp:0")
    assert failure.check(CannotListenError)
    assert "the supervisor has not bound it; restart the gateway" in failure.getErrorMessage()


def test_a_bare_port_serves_both_families() -> None:
    binder = PortBinder()
    results: list[Any] = []
    BothFamiliesEndpoint(binder, 0, 10).listen(Factory()).addBoth(results.append)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, results[0].getHost().port)).close()
    results[0].stopListening()


def test_a_taken_port_is_a_fault_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        binder = PortBinder()
        failure = listen(binder, f"tcp:{number}:interface=127.0.0.1")
    assert failure.check(CannotListenError)
    assert "Address already in use" in failure.getErrorMessage()
    assert binder.bound == []


def test_a_unix_socket_has_its_mode_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "s"
    port = listen(PortBinder(), f"unix:{path}:mode=600")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "another process listens there" in listen(PortBinder(), f"unix:{path}").getErrorMessage()
    port.stopListening()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    os.symlink(str(os.getpid()), f"{path}.lock")
    port = listen(PortBinder(), f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    port.stopListening()


def test_kept_ports_are_used_again_for_the_same_endpoint() -> None:
    first = PortBinder()
    number = listen(first, "tcp:0:interface=127.0.0.1").getHost().port
    other = listen(first, "tcp:0:interface=127.0.0.2")
    second = PortBinder(first.bound)
    assert listen(second, "tcp:0:interface=127.0.0.1").getHost().port == number
    assert second.left == [other]
    for port in first.bound:
        port.stopListening()


def test_systemds_socket_keeps_its_number() -> None:
    """The endpoint closes the one that it adopts."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        number = given.fileno()
        binder = PortBinder()
        binder.adoptStreamPort(number, socket.AF_INET, Factory())
        os.close(number)
        binder.restore_adopted()
        assert given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_the_admin_ports_own_tls_is_bound_too() -> None:
    binder = PortBinder()
    binder.listenSSL(0, Factory(), None, interface="127.0.0.1")
    assert binder.bound[0].key == ("tcp", 0, "127.0.0.1")
    binder.bound[0].stopListening()
