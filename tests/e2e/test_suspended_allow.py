"""What is served for a suspended tenant, since others depend on it: over sockets, on each way in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.doors import WAYS, Doors, Pairs, open_doors
from tests.kit.recording import HOST, SETTINGS, TENANTS, connect, request
from tests.kit.waiting import until

GLOBEX, DOMAIN, BASE = b"globex.id.koder.dev", b"login.globex.example", b"id.koder.dev"
PAGE, ANOTHERS = b"https://globex.example", b"https://koder.example"
ALLOW = b"access-control-allow-origin"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata:\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhello"
OPENING = b"Connection: Upgrade\r\nUpgrade: chat\r\n"
LIMITED = """
[[limits]]
name = "keys"
rate = "1000/h"
paths = ["/oauth/v2/keys"]
[tenants]
refresh = "100ms"
"""
ways = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS.replace("limits = []\n", "").replace("[tenants]\n", LIMITED)
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        yield doors


@pytest.fixture
def doors(shared: Doors) -> Doors:
    shared.origin.forget()
    return shared


@ways
@pytest.mark.parametrize("host", [GLOBEX, DOMAIN, BASE])
def test_the_paths_are_served_and_no_others(host: bytes, way: str, doors: Doors) -> None:
    named: Pairs = [(b"X-Tenant-ID", b"globex")] if host == BASE else []
    served = [b"/.well-known/openid-configuration", b"/oauth/v2/keys", b"/oauth/v2/%6beys?a=b", b"/oauth/v2/revoke/x"]
    for path in served:
        assert doors.ask(way, path, named, host=host).status == 200, path
    received = doors.received()
    assert [message.target for message in received] == served
    assert [message.values(b"x-tenant-id") for message in received] == [[b"globex"]] * len(served)
    for path in (b"/oauth/v2/keys2", b"/oauth/v2/token", b"/v1/users", b"/oauth/v2//keys", b"/OAUTH/v2/keys", b"/"):
        answer = doors.ask(way, path, named, host=host)
        assert (answer.status, b"tenant_suspended" in answer.body) == (403, True), path


@ways
def test_limits_and_cors_are_as_usual_there(way: str, doors: Doors) -> None:
    answer = doors.ask(
        way, b"/oauth/v2/introspect", [(b"Origin", PAGE)], method=b"POST", host=GLOBEX, body=b"token=a"
    )
    assert (answer.status, answer.values(ALLOW)) == (200, [PAGE])
    asked = [(b"Origin", PAGE), (b"Access-Control-Request-Method", b"POST")]
    preflight = doors.ask(way, b"/oauth/v2/revoke", asked, method=b"OPTIONS", host=GLOBEX)
    assert (preflight.status, preflight.values(ALLOW)) == (204, [PAGE])
    limited = doors.ask(way, b"/oauth/v2/keys", host=GLOBEX)
    assert limited.values(b"ratelimit-policy") == [b'"keys";q=1000;w=3600']


@ways
def test_another_tenants_page_may_change_nothing_there(way: str, doors: Doors) -> None:
    answer = doors.ask(
        way, b"/oauth/v2/revoke", [(b"Origin", ANOTHERS)], method=b"POST", host=GLOBEX, body=b"token=a"
    )
    assert (answer.status, answer.values(ALLOW)) == (403, [])
    assert doors.received() == []
    # It may read what is public, as that of any tenant.
    assert doors.ask(way, b"/oauth/v2/keys", [(b"Origin", ANOTHERS)], host=GLOBEX).values(ALLOW) == [b"*"]


def test_what_is_open_there_stays_when_the_tenant_is_suspended(doors: Doors) -> None:
    doors.origin.answers[b"/oauth/v2/keys"] = STREAM
    doors.origin.answers[b"/.well-known/socket"] = SWITCHED
    doors.origin.answers[b"/v1/users/stream"] = STREAM
    with (
        connect(doors.ports[0], secure=True) as stays,
        connect(doors.ports[0], secure=True) as tunnel,
        connect(doors.ports[0], secure=True) as ends,
    ):
        stays.send(request(b"/oauth/v2/keys"))
        tunnel.send(request(b"/.well-known/socket", fields=OPENING))
        ends.send(request(b"/v1/users/stream"))
        for client, begun in ((stays, b"data:"), (tunnel, b"hello"), (ends, b"data:")):
            came = b""
            while begun not in came:
                came += client.socket.recv(65536)
        registry = doors.folder / "tenants.new"
        registry.write_text(TENANTS.replace('slug = "koder"\n', 'slug = "koder"\nstatus = "suspended"\n'))
        registry.replace(doors.folder / "tenants.toml")
        until(lambda: doors.ask("http1", b"/v1/users", host=HOST).status == 403, "the tenant is suspended")
        assert ends.socket.recv(65536) == b""
        assert not stays.waits()
        tunnel.send(b"still there")
        until(lambda: b"still there" in b"".join(doors.origin.unfinished), "the tunnel carries bytes")
