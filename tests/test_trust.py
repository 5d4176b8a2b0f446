"""What a client says of itself, and what a service is told: over sockets, on each way in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from doors import WAYS, Doors, open_doors
from http2_client import Http2Client
from http2_frames import block, data, headers
from sockets import HOST, SETTINGS, Client, Message

from koder_gateway.wire.fields import CLAIMS

OWN = {
    b"x-tenant-id": b"koder",
    b"x-forwarded-for": b"127.0.0.1",
    b"x-forwarded-host": b"koder.id.koder.dev",
    b"via": b"1.1 koder-gateway",
}
ALLOWING = """
allow_fields = ["x-method-override"]
"""
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(
        tmp_path_factory.mktemp("gateway"), SETTINGS.replace("[requests]\n", "[requests]" + ALLOWING)
    ) as doors:
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


@ways
def test_what_software_takes_for_the_truth_comes_from_no_client(way: str, doors: Doors) -> None:
    fields = [(name.title(), b"evil") for name in sorted(CLAIMS - {b"x-method-override"})]
    fields += [(b"X.Original.URL", b"evil"), (b"CF~Connecting~IP", b"evil"), (b"X-Method-Override", b"PUT")]
    assert doors.ask(way, fields=[*fields, (b"X-Kept", b"kept")]).status == 200
    message = doors.only()
    check_own(message)
    assert b"evil" not in message.raw
    assert message.value(b"x-kept") == b"kept"
    assert message.value(b"x-method-override") == b"PUT"


TRAILERS = ((b"x-sum", b"1"), (b"x-else", b"evil"), (b"x-forwarded-for", b"evil"), (b"proxy", b"evil"))


def test_trailers_pass_by_a_list_over_http1(doors: Doors) -> None:
    with Client(doors.ports[0], secure=True) as client:
        client.send(b"POST /v1/users HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST)
        client.send(b"1\r\nx\r\n0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in TRAILERS) + b"\r\n")
        assert client.answer().status == 200
    assert doors.only().trailers == [TRAILERS[0]]


def test_trailers_pass_by_a_list_over_http2(doors: Doors) -> None:
    head = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/v1/users"), (b":authority", HOST)]
    with Http2Client.connect(doors.ports[0], HOST) as client:
        client.start()
        client.send(headers(1, block(head), end=False), data(1, b"x"), headers(1, block(list(TRAILERS))))
        assert client.answer(1).status == 200
    assert doors.only().trailers == [TRAILERS[0]]


@ways
def test_a_service_names_no_other_place_for_the_gateway(way: str, doors: Doors) -> None:
    doors.origin.answers[b"/v1/users/alt"] = (
        b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":9"\r\nX-Kept: kept\r\nContent-Length: 0\r\n\r\n'
    )
    answer = doors.ask(way, b"/v1/users/alt")
    assert (answer.values(b"alt-svc"), answer.values(b"x-kept")) == ([], [b"kept"])
