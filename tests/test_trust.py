"""What a client says of itself, and what a service is told: over sockets, on each way in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doors import WAYS, Doors, open_doors
from sockets import SETTINGS, Message

OWN = {
    b"x-tenant-id": b"koder",
    b"x-forwarded-for": b"127.0.0.1",
    b"x-forwarded-host": b"koder.id.koder.dev",
    b"via": b"1.1 koder-gateway",
}
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("gateway"), SETTINGS) as doors:
        yield doors


@pytest.fixture
def doors(shared: Doors) -> Doors:
    shared.origin.forget()
    return shared


def check_own(message: Message) -> None:
    """The gateway's own fields are there once each."""
    for name, value in OWN.items():
        assert message.values(name) == [value]


# -- names


@ways
@pytest.mark.parametrize("mark", [b"-", b".", b"~", b"_", b"!", b"'", b"--", b""])
def test_the_gateways_own_names_come_from_nobody_else(way: str, mark: bytes, doors: Doors) -> None:
    names = [
        b"X-Request-ID",
        b"X-Real-IP",
        b"X-Forwarded-For",
        b"X-Forwarded-User",
        b"Client-Cert",
        b"Client-Cert-Chain",
    ]
    spelled = [(mark.join(name.split(b"-")) + tail, b"evil!") for name in names for tail in (b"", b".")]
    spelled += [
        (b"X" + mark + b"Tenant" + mark + b"ID", b"koder"),
        (b"For~warded", b"for=evil"),
        (b"X-Kept", b"kept"),
    ]
    assert doors.ask(way, fields=spelled).status == 200
    message = doors.only()
    check_own(message)
    assert message.value(b"x-kept") == b"kept"
    assert b"evil" not in message.raw
    assert message.raw.count(b"koder\r\n") == 1
