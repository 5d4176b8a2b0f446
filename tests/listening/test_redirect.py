"""The plain port: where it sends whom, what it refuses, and the challenges that it shows."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from koder_gateway.acme.layout import Layout
from koder_gateway.listening.challenges import PREFIX, ChallengeError, read_challenge
from koder_gateway.listening.redirect import RedirectSite
from koder_gateway.policy.tenants import Tenant
from koder_gateway.tenants.remote_registry import UnreadTenants
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http1 import Message, read_message, read_messages
from tests.kit.memory import MemoryGateway, Peer, join, request, settings_with

TENANTS = (
    Tenant("koder", domains=("login.koder.example",), cors_origins=("https://app.example",)),
    Tenant("closed", domains=("closed.example",), status="suspended"),
)
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
PROOF = TOKEN.encode() + b".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


class PlainPort:
    """The plain port of a gateway in memory."""

    def __init__(self, gateway: MemoryGateway, webroot: Path | None = None, own: Layout | None = None) -> None:
        self.gateway = gateway
        self.site = RedirectSite(gateway.site, webroot, own)

    def connect(self, peer: str = "192.0.2.1") -> Peer:
        """A client."""
        client = join(self.gateway.reactor, self.site.buildProtocol(None), peer=peer)
        self.gateway.clients.append(client)
        return client

    def ask(self, data: bytes, *, to_head: bool = False) -> Message:
        """The answer to one request."""
        client = self.connect().send(data)
        message, rest = read_message(client.take(), to_head=to_head)
        assert rest == b""
        return message


@pytest.fixture
def port(make_gateway: Callable[..., MemoryGateway]) -> PlainPort:
    return PlainPort(make_gateway(tenants=TENANTS))


@pytest.fixture
def webroot(tmp_path: Path) -> Path:
    """A folder as certbot --webroot leaves it while an authority looks."""
    folder = tmp_path / "webroot" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / TOKEN).write_bytes(PROOF)
    return tmp_path / "webroot"


@pytest.fixture
def challenging(make_gateway: Callable[..., MemoryGateway], webroot: Path) -> PlainPort:
    return PlainPort(make_gateway(tenants=TENANTS), webroot)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    seen: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name == "warn":
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


# -- where to


@pytest.mark.parametrize(
    ("host", "to"),
    [
        (b"koder.id.koder.dev", b"koder.id.koder.dev"),
        (b"koder.id.koder.dev:80", b"koder.id.koder.dev"),
        (b"koder.id.koder.dev:8080", b"koder.id.koder.dev"),
        (b"KODER.id.Koder.dev", b"koder.id.koder.dev"),
        (b"koder.id.koder.dev.", b"koder.id.koder.dev"),
        (b"login.koder.example", b"login.koder.example"),
        (b"id.koder.dev", b"id.koder.dev"),
        (b"closed.id.koder.dev", b"closed.id.koder.dev"),
        (b"closed.example", b"closed.example"),
    ],
)
def test_every_host_of_ours_is_sent_to_https(port: PlainPort, host: bytes, to: bytes) -> None:
    message = port.ask(request(host=host))
    assert message.start == b"HTTP/1.1 308 Permanent Redirect"
    assert message.one(b"Location") == b"https://" + to + b"/v1/users"
    assert message.one(b"Content-Length") == b"0"
    assert message.one(b"X-Request-ID") == b"r1"
    assert not message.values(b"Strict-Transport-Security")
    (exchange,) = port.gateway.exchanges
    assert (exchange.status, exchange.code, exchange.service) == (308, "", "")


@pytest.mark.parametrize(
    ("host", "status", "code"),
    [
        (b"nobody.id.koder.dev", 404, "unknown_tenant"),
        (b"a.koder.id.koder.dev", 421, "misdirected_request"),
        (b"-.id.koder.dev", 421, "misdirected_request"),
        (b".id.koder.dev", 421, "misdirected_request"),
        (b"evil.example", 421, "misdirected_request"),
        (b"koder.id.koder.dev.evil.example", 421, "misdirected_request"),
        (b"127.0.0.1", 421, "misdirected_request"),
        (b"[::1]:80", 421, "misdirected_request"),
        (b"koder.id.koder.dev@evil.example", 400, "bad_request"),
    ],
)
def test_other_hosts_are_refused_as_on_the_main_port(port: PlainPort, host: bytes, status: int, code: str) -> None:
    message = port.ask(request(host=host))
    main = port.gateway.connect().send(request(host=host))
    assert (message.status, message.code) == (status, code)
    assert main.take() == b"".join((message.start, b"\r\n", _lines(message), b"\r\n", message.body))
    assert not message.values(b"Location")


def _lines(message: Message) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in message.fields)


@pytest.mark.parametrize(
    "target", [b"/", b"//x/y/", b"/a%20b?c=%2F..&d=/e?f", b"/a;b=c?", b"/v1/users?next=https://x/"]
)
def test_path_and_query_stay_as_they_were_sent(port: PlainPort, target: bytes) -> None:
    assert port.ask(request(b"GET", target)).one(b"Location") == b"https://koder.id.koder.dev" + target


def test_an_absolute_target(port: PlainPort) -> None:
    message = port.ask(request(b"GET", b"http://koder.id.koder.dev?a=b"))
    assert message.one(b"Location") == b"https://koder.id.koder.dev/?a=b"


@given(target=st.binary(max_size=40), host=st.binary(max_size=30))
def test_nothing_that_is_sent_becomes_a_field_of_its_own(target: bytes, host: bytes) -> None:
    gateway = MemoryGateway()
    client = PlainPort(gateway).connect()
    client.send(b"GET /%b HTTP/1.1\r\nHost: koder.id.koder.dev%b\r\nX-Request-ID: r1\r\n\r\n" % (target, host))
    for message in read_messages(client.take()):
        allowed = {b"Location", b"Date", b"X-Request-ID", b"Content-Length", b"Connection"}
        allowed |= {b"Content-Type", b"Cache-Control", b"X-Content-Type-Options", b"Allow", b"Vary"}
        assert {name for name, _ in message.fields} <= allowed
        if message.status == 308:
            assert message.one(b"Location").startswith(b"https://koder.id.koder.dev")
            assert message.one(b"Location").endswith(b"/" + target)
    gateway.hang_up()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
def test_every_method_is_redirected(port: PlainPort, method: bytes) -> None:
    assert port.ask(request(method), to_head=method == b"HEAD").status == 308


def test_a_preflight_too(port: PlainPort) -> None:
    lines = (b"Origin: https://app.example", b"Access-Control-Request-Method: POST")
    message = port.ask(request(b"OPTIONS", b"/v1/users", *lines))
    assert message.status == 308
    # Whoever may read the answers may read this one.
    assert message.one(b"Access-Control-Allow-Origin") == b"https://app.example"


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_what_is_never_forwarded_is_never_redirected(port: PlainPort, method: bytes) -> None:
    assert port.ask(request(method)).code == "method_not_allowed"


def test_the_whole_server_has_no_url(port: PlainPort) -> None:
    message = port.ask(request(b"OPTIONS", b"*"))
    assert (message.status, message.values(b"Location")) == (204, [])
    assert port.ask(request(b"OPTIONS", b"http://koder.id.koder.dev")).status == 204


def test_the_whole_server_is_not_asked_of_by_https_without_tls(port: PlainPort) -> None:
    message = port.ask(request(b"OPTIONS", b"https://koder.id.koder.dev"))
    assert (message.status, message.code) == (421, "misdirected_request")


@pytest.mark.parametrize(
    "line", [b"X-Tenant-ID: closed", b"X-Tenant-ID: nobody", b"X-Tenant-ID: a\r\nX-Tenant-ID: b"]
)
@pytest.mark.parametrize("host", [b"id.koder.dev", b"koder.id.koder.dev"])
def test_the_tenant_header_is_for_the_real_request(port: PlainPort, host: bytes, line: bytes) -> None:
    assert port.ask(request(b"GET", b"/", line, host=host)).status == 308


def test_the_log_names_the_tenant(port: PlainPort) -> None:
    for host in (b"koder.id.koder.dev", b"id.koder.dev", b"closed.example"):
        port.ask(request(host=host))
    assert [exchange.tenant for exchange in port.gateway.exchanges] == [b"koder", b"", b"closed"]


def test_what_is_malformed_is_refused_as_everywhere(port: PlainPort) -> None:
    client = port.connect().send(b"GET / HTTP/1.1\r\nHost: koder.id.koder.dev\r\nContent-Length: +1\r\n\r\n")
    (message,) = read_messages(client.take())
    assert message.code == "bad_request"


def test_a_connection_is_kept(port: PlainPort) -> None:
    client = port.connect().send(request() * 3)
    assert [message.status for message in read_messages(client.take())] == [308] * 3
    assert not client.closed


def test_a_body_is_not_waited_for(port: PlainPort) -> None:
    client = port.connect().send(request(b"POST", b"/v1/users", b"Content-Length: 10"))
    assert read_messages(client.take())[0].status == 308
    client.send(b"0123456789" + request())
    assert read_messages(client.take())[0].status == 308
    client.send(request(b"POST", b"/v1/users", b"Content-Length: 10000000"))
    (message,) = read_messages(client.take())
    assert (message.status, message.one(b"Connection")) == (308, b"close")
    port.gateway.advance(2.5)
    assert client.closed


def test_an_unread_registry_is_not_nobody(port: PlainPort) -> None:
    site = port.gateway.site
    site.policy = replace(site.policy, tenants=UnreadTenants())
    message = port.ask(request(host=b"nobody.id.koder.dev"))
    assert (message.code, message.one(b"Retry-After")) == ("overloaded", b"1")


def test_its_connections_are_the_main_site_s(make_gateway: Callable[..., MemoryGateway]) -> None:
    gateway = make_gateway(limits=client_limits(max_connections=2), timeouts=client_timeouts(head=5))
    port = PlainPort(gateway)
    main, plain, over = gateway.connect(), port.connect(), port.connect()
    assert len(gateway.site.channels) == 3
    assert read_messages(over.take())[0].code == "overloaded"
    assert (gateway.site.accepted, gateway.site.rejected) == (3, 1)
    gateway.advance(5.5)
    assert main.closed
    assert plain.closed


def test_it_drains_with_the_main_site(port: PlainPort) -> None:
    idle = port.connect().send(request())
    idle.take()
    coming = port.connect().send(request()[:20])
    port.gateway.site.drain()
    port.gateway.reactor.advance(0)
    assert idle.closed == ""
    coming.send(request()[20:])
    (message,) = read_messages(coming.take())
    assert (message.status, message.one(b"Connection")) == (308, b"close")
    port.gateway.advance(3)
    assert idle.closed == "clean"


# -- challenges


def challenge(name: str, method: bytes = b"GET", **options: bytes) -> bytes:
    return request(method, PREFIX + name.encode(), **options)


@pytest.mark.parametrize("host", [b"koder.id.koder.dev", b"new.example", b"127.0.0.1:80", b"[::1]"])
def test_a_challenge_is_shown_to_whoever_asks_for_it(challenging: PlainPort, host: bytes) -> None:
    message = challenging.ask(challenge(TOKEN, host=host))
    assert (message.status, message.body) == (200, PROOF)
    assert message.one(b"Content-Type") == b"text/plain"
    assert message.one(b"Cache-Control") == b"no-store"
    assert message.one(b"X-Request-ID") == b"r1"
    head = challenging.ask(challenge(TOKEN, b"HEAD", host=host), to_head=True)
    assert (head.status, head.one(b"Content-Length")) == (200, b"%d" % len(PROOF))


def test_a_query_does_not_matter(challenging: PlainPort) -> None:
    assert challenging.ask(challenge(TOKEN + "?a=b")).body == PROOF


@pytest.mark.parametrize("name", ["", "missing", TOKEN + "x", TOKEN + "/", f"x/{TOKEN}", "a.b", "a%3a", "x" * 129])
def test_what_is_no_challenge_is_not_found(
    challenging: PlainPort, webroot: Path, warnings: list[str], name: str
) -> None:
    folder = webroot / ".well-known" / "acme-challenge"
    for each in ("a.b", "ab", "a%62", "x" * 129):
        (folder / each).write_bytes(PROOF)
    message = challenging.ask(challenge(name))
    assert (message.status, message.code) == (404, "no_route")
    assert warnings == []


@pytest.mark.parametrize("path", [b"/.well-known/acme-challenge", b"/.well-known/openid-configuration", b"/x"])
def test_everything_else_is_redirected(challenging: PlainPort, path: bytes) -> None:
    assert challenging.ask(request(b"GET", path)).one(b"Location").endswith(path)


def test_without_a_webroot_challenges_are_redirected(port: PlainPort) -> None:
    message = port.ask(challenge(TOKEN))
    assert message.one(b"Location") == b"https://koder.id.koder.dev" + PREFIX + TOKEN.encode()


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS"])
def test_a_challenge_can_only_be_read(challenging: PlainPort, method: bytes) -> None:
    message = challenging.ask(challenge(TOKEN, method))
    assert (message.code, message.one(b"Allow")) == ("method_not_allowed", b"GET, HEAD")


def test_a_challenge_that_comes_and_goes(challenging: PlainPort, webroot: Path) -> None:
    file = webroot / ".well-known" / "acme-challenge" / "later"
    assert challenging.ask(challenge("later")).status == 404
    file.write_bytes(b"now")
    assert challenging.ask(challenge("later")).body == b"now"
    file.unlink()
    assert challenging.ask(challenge("later")).status == 404


def _link(file: Path, secret: Path) -> None:
    file.symlink_to(secret)


def _folder(file: Path, secret: Path) -> None:
    file.mkdir()


def _pipe(file: Path, secret: Path) -> None:
    os.mkfifo(file)


def _socket(file: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(file))


def _large(file: Path, secret: Path) -> None:
    file.write_bytes(b"x" * 65537)


def _linked_folder(file: Path, secret: Path) -> None:
    file.parent.rmdir()
    elsewhere = secret.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / file.name).write_bytes(b"secret")
    file.parent.symlink_to(elsewhere)


@pytest.mark.parametrize("lay", [_link, _folder, _pipe, _socket, _large, _linked_folder])
def test_what_is_no_small_regular_file_is_not_shown(
    make_gateway: Callable[..., MemoryGateway], tmp_path: Path, warnings: list[str], lay: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    file = tmp_path / "root" / ".well-known" / "acme-challenge" / "x"
    file.parent.mkdir(parents=True)
    lay(file, tmp_path / "secret")
    message = PlainPort(make_gateway(), tmp_path / "root").ask(challenge("x"))
    assert (message.status, message.code) == (404, "no_route")
    (line,) = warnings
    assert line.startswith(f"an ACME challenge could not be served: {file}: ")


def test_the_largest_challenge(challenging: PlainPort, webroot: Path) -> None:
    (webroot / ".well-known" / "acme-challenge" / "large").write_bytes(b"x" * 65536)
    assert len(challenging.ask(challenge("large")).body) == 65536


def test_a_webroot_that_has_vanished_is_a_few_lines(
    make_gateway: Callable[..., MemoryGateway], tmp_path: Path, warnings: list[str]
) -> None:
    port = PlainPort(make_gateway(), tmp_path / "gone")
    client = port.connect()
    for _ in range(50):
        client.send(challenge("x"))
        assert read_messages(client.take())[0].status == 404
    assert len(warnings) == 10
    assert (
        f"{tmp_path / 'gone'}: No such file or directory; make the folder that tls.acme_webroot names" in warnings[0]
    )


def test_the_webroot_itself_may_be_a_link(tmp_path: Path, webroot: Path) -> None:
    (tmp_path / "link").symlink_to(webroot)
    assert read_challenge(tmp_path / "link", PREFIX + TOKEN.encode()) == PROOF


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_s(webroot: Path) -> None:
    (webroot / ".well-known" / "acme-challenge" / TOKEN).chmod(0)
    with pytest.raises(ChallengeError, match="Permission denied; let the gateway's user read it"):
        read_challenge(webroot, PREFIX + TOKEN.encode())


def test_no_descriptor_is_left_open(webroot: Path) -> None:
    folder = webroot / ".well-known" / "acme-challenge"
    (folder / "folder").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        for name in (TOKEN, "missing", "../x"):
            read_challenge(webroot, PREFIX + name.encode())
        with pytest.raises(ChallengeError):
            read_challenge(webroot, PREFIX + b"folder")
    assert len(os.listdir("/proc/self/fd")) == before


def test_settings_in_memory_have_no_plain_port() -> None:
    settings = settings_with()
    assert (settings.listen.redirect_port, settings.tls.acme_webroot) == ((), None)


# -- challenges of the gateway's own orders


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """The state folder while an order waits for its authority."""
    layout = Layout.below(tmp_path / "state")
    for folder in layout.folders:
        folder.mkdir(parents=True)
    (layout.http_challenges / TOKEN).write_bytes(PROOF)
    return layout


@pytest.fixture
def ordering(make_gateway: Callable[..., MemoryGateway], layout: Layout) -> PlainPort:
    return PlainPort(make_gateway(tenants=TENANTS), own=layout)


@pytest.mark.parametrize("host", [b"login.koder.example", b"nobody.example", b"192.0.2.7:80"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("query", [b"", b"?a=b"])
def test_an_own_challenge_is_shown_at_any_host(ordering: PlainPort, host: bytes, method: bytes, query: bytes) -> None:
    asked = request(method=method, host=host, target=PREFIX + TOKEN.encode() + query)
    message = ordering.ask(asked, to_head=method == b"HEAD")
    assert message.status == 200
    assert message.one(b"Content-Length") == b"%d" % len(PROOF)
    assert message.body == (b"" if method == b"HEAD" else PROOF)
    assert ordering.site.challenges == {"answered": 1, "unknown": 0, "faulty": 0}


@pytest.mark.parametrize(
    "path",
    [
        TOKEN.encode() + b"/",
        TOKEN.encode() + b";a",
        TOKEN.encode()[:-1],
        b"",
        b"another-token-that-nobody-has-asked-for",
        b"x" * 200,
    ],
)
def test_another_path_is_no_challenge(ordering: PlainPort, path: bytes) -> None:
    message = ordering.ask(request(host=b"login.koder.example", target=PREFIX + path))
    assert (message.status, message.code) == (404, "no_route")
    assert ordering.site.challenges == {"answered": 0, "unknown": 1, "faulty": 0}


def test_an_own_challenge_is_only_read(ordering: PlainPort) -> None:
    message = ordering.ask(request(method=b"POST", host=b"a.example", target=PREFIX + TOKEN.encode()))
    assert message.status == 405
    assert message.one(b"Allow") == b"GET, HEAD"


def test_what_is_no_challenge_is_redirected_as_ever(ordering: PlainPort) -> None:
    for path in (b"/.well-known/acme-challenge", b"/.well-known/openid-configuration", b"/"):
        assert ordering.ask(request(host=b"login.koder.example", target=path)).status == 308


def test_own_challenges_and_certbot_s_are_shown_beside_each_other(
    make_gateway: Callable[..., MemoryGateway], layout: Layout, webroot: Path
) -> None:
    port = PlainPort(make_gateway(tenants=TENANTS), webroot, layout)
    (layout.http_challenges / TOKEN).rename(layout.http_challenges / f"own-{TOKEN}")
    for token in (TOKEN, f"own-{TOKEN}"):
        assert port.ask(request(host=b"a.example", target=PREFIX + token.encode())).body == PROOF


@pytest.mark.parametrize("kind", ["folder", "link", "large"])
def test_an_own_challenge_that_is_no_plain_file_is_a_line(
    ordering: PlainPort, layout: Layout, kind: str, warnings: list[str]
) -> None:
    path = layout.http_challenges / TOKEN
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.write_bytes(b"a" * 70000)
    message = ordering.ask(request(host=b"a.example", target=PREFIX + TOKEN.encode()))
    assert message.status == 404
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert ordering.site.challenges["faulty"] == 1


def test_without_its_folder_there_is_no_challenge_and_no_line(
    make_gateway: Callable[..., MemoryGateway], tmp_path: Path, warnings: list[str]
) -> None:
    port = PlainPort(make_gateway(tenants=TENANTS), own=Layout.below(tmp_path / "nowhere"))
    assert port.ask(request(host=b"a.example", target=PREFIX + TOKEN.encode())).status == 404
    assert warnings == []
