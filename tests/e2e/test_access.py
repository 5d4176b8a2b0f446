"""Routes that are open to some clients only: on every way in, in every spelling, for tunnels and mounts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.doors import WAYS, Doors, open_doors
from tests.kit.recording import SETTINGS

ROUTES = """
[[routes]]
path = "/"
service = "identity"
[[routes]]
path = "/closed"
service = "identity"
allow = ["10.0.0.0/8", "2001:db8::7"]
[[routes]]
path = "/closed/open"
service = "identity"
[[routes]]
path = "/mounted/closed"
service = "identity"
allow = ["10.0.0.0/8"]
"""
INSIDE = [(b"x-forwarded-for", b"10.1.2.3")]
OUTSIDE = [(b"x-forwarded-for", b"203.0.113.7")]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS + """[listen]\ntrusted_proxies = ["127.0.0.1/32"]\n"""
    with open_doors(tmp_path_factory.mktemp("gateway"), settings + ROUTES) as doors:
        yield doors


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "target",
    [
        b"/closed", b"/closed/", b"/closed/7?a=b", b"/%63losed", b"/Closed", b"//closed/7", b"/closed;a=b",
        b"/closed.json", b"/%2563losed", b"/x/%252e%252e/closed", b"/closed%20/7", b"/mounted/closed/7",
    ],
)  # fmt: skip
def test_no_spelling_reaches_the_service(way: str, target: bytes, doors: Doors) -> None:
    doors.origin.forget()
    for fields in (OUTSIDE, [], [(b"forwarded", b"for=unknown")], [*INSIDE, (b"forwarded", b"for=203.0.113.7")]):
        # Without a header the client is the proxy itself, at 127.0.0.1.
        refused = doors.ask(way, target, fields)
        assert (refused.status, refused.body.count(b'"code":"not_allowed"')) == (403, 1)
    assert doors.ask(way, target, INSIDE).status == 200
    assert [message.target for message in doors.received()] == [target]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", [b"/closed/open", b"/closed/open/7", b"/Closed/Open", b"/closed2", b"/x"])
def test_what_is_not_closed_is_open(way: str, target: bytes, doors: Doors) -> None:
    assert doors.ask(way, target, OUTSIDE).status == 200


@pytest.mark.parametrize("way", WAYS)
def test_a_mounted_resource_is_open(way: str, doors: Doors) -> None:
    answered = doors.ask(way, b"/mounted/7", OUTSIDE)
    assert (answered.status, b"/mounted/7" in answered.body) == (200, True)


@pytest.mark.parametrize("way", ["http1", "stock"])
def test_a_handshake_of_a_websocket_is_a_request_like_others(way: str, doors: Doors) -> None:
    asks = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    assert doors.ask(way, b"/closed", [*asks, *OUTSIDE]).status == 403
