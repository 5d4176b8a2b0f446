"""A refusal has the shape that its reader expects, on every way in: problem details, an OAuth error, or a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.tenants import Tenant
from koder_gateway.tls.plain_http import PlainRequest
from koder_gateway.wire.refusal_writer import RefusalWriter
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.doors import WAYS, Answer, Doors, open_doors
from tests.kit.http1 import read_messages
from tests.kit.memory import MemoryGateway, request, settings_with

HTML = (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
NAVIGATE = (b"sec-fetch-mode", b"navigate")
DOCS = "https://docs.example.com/errors#"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = f"""
[tenants]
base_domain = "id.koder.dev"
registry = "tenants.toml"
[problems]
docs_url = "{DOCS}"
[cors]
origins = ["https://app.example.com"]
[services]
oauth2 = "ORIGIN"
identity = "ORIGIN"
[[routes]]
path = "/oauth/v2"
service = "oauth2"
[[routes]]
path = "/v1/users"
service = "identity"
[[routes]]
path = "/oauth/v2/scim"
service = "identity"
[[limits]]
name = "token"
key = ["tenant"]
rate = "1/h"
paths = ["/oauth/v2/token"]
[state]
dir = "state"
[log]
file = "access.log"
"""
    with open_doors(tmp_path_factory.mktemp("shapes"), settings) as opened:
        yield opened


def is_own(answer: Answer) -> None:
    """Every response of the gateway's own says so."""
    assert answer.values(b"cache-control") == [b"no-store"]
    assert answer.values(b"x-content-type-options") == [b"nosniff"]
    assert len(answer.values(b"x-request-id")) == 1
    assert len(answer.values(b"content-type")) == 1


def problem(answer: Answer) -> dict[str, object]:
    """The members of problem details; the type is below the configured URL."""
    is_own(answer)
    assert answer.values(b"content-type") == [b"application/problem+json"]
    document: dict[str, object] = json.loads(answer.body)
    assert list(document) == ["type", "title", "status", "code", "detail", "request_id"]
    assert document["type"] == f"{DOCS}{document['code']}"
    assert document["request_id"] == answer.values(b"x-request-id")[0].decode()
    return document


def oauth(answer: Answer) -> dict[str, object]:
    """The members of an OAuth error, with those of the problem beside them."""
    is_own(answer)
    assert answer.values(b"content-type") == [b"application/json"]
    document: dict[str, object] = json.loads(answer.body)
    names = ["error", "error_description", "error_uri", "type", "title", "status", "code", "detail", "request_id"]
    assert list(document) == names
    assert document["error_uri"] == document["type"] == f"{DOCS}{document['code']}"
    assert document["request_id"] == answer.values(b"x-request-id")[0].decode()
    return document


def page(answer: Answer) -> str:
    """The text of a page."""
    is_own(answer)
    assert answer.values(b"content-type") == [b"text/html; charset=utf-8"]
    assert answer.values(b"content-security-policy")[0].startswith(b"default-src 'none'; style-src 'sha256-")
    request_id = answer.values(b"x-request-id")[0]
    assert b"<code>%b</code></footer>" % request_id in answer.body
    return answer.body.decode()


@pytest.mark.parametrize("way", WAYS)
class TestOnEveryWayIn:
    def test_a_program_gets_problem_details(self, doors: Doors, way: str) -> None:
        document = problem(doors.ask(way, b"/nowhere", [(b"accept", b"*/*")]))
        assert (document["status"], document["code"]) == (404, "no_route")

    @pytest.mark.parametrize("fields", [(HTML,), (NAVIGATE,), (NAVIGATE, (b"accept", b"application/json"))])
    def test_a_browser_that_navigates_gets_a_page(
        self, doors: Doors, way: str, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        text = page(doors.ask(way, b"/nowhere", fields))
        assert "<h1>This page does not exist</h1>" in text
        assert "<title>This page does not exist - koder</title>" in text

    def test_a_script_in_a_browser_does_not(self, doors: Doors, way: str) -> None:
        assert problem(doors.ask(way, b"/nowhere", [(b"sec-fetch-mode", b"cors"), HTML]))["code"] == "no_route"

    def test_a_page_is_in_the_name_of_a_suspended_tenant_too(self, doors: Doors, way: str) -> None:
        text = page(doors.ask(way, b"/v1/users", [HTML], host=b"login.globex.example"))
        assert "access is suspended - globex</title>" in text

    def test_a_page_of_no_tenant_has_no_name(self, doors: Doors, way: str) -> None:
        text = page(doors.ask(way, b"/v1/users", [HTML], host=b"nobody.id.koder.dev"))
        assert "<title>This organization does not exist</title>" in text
        assert "nobody" not in text

    def test_an_oauth_client_gets_an_oauth_error(self, doors: Doors, way: str) -> None:
        answer = doors.ask(way, b"/oauth/v2/keys", [(b"x-tenant-id", b"acme")])
        document = oauth(answer)
        assert (answer.status, document["error"], document["code"]) == (400, "invalid_request", "tenant_conflict")
        assert answer.values(b"www-authenticate") == []

    def test_the_error_of_a_protected_resource_is_in_the_challenge_too(self, doors: Doors, way: str) -> None:
        answer = doors.ask(way, b"/oauth/v2/userinfo", [(b"x-tenant-id", b"acme"), (b"authorization", b"Bearer a")])
        document = oauth(answer)
        said = f'Bearer error="invalid_request", error_description="{document["error_description"]}"'
        assert answer.values(b"www-authenticate") == [said.encode()]

    def test_a_page_wins_on_an_oauth_path(self, doors: Doors, way: str) -> None:
        assert "<h1>" in page(doors.ask(way, b"/oauth/v2/authorize", [NAVIGATE, (b"x-tenant-id", b"acme")]))

    def test_the_longest_path_decides(self, doors: Doors, way: str) -> None:
        assert problem(doors.ask(way, b"/oauth/v2/scim/1", [(b"x-tenant-id", b"acme")]))["code"] == "tenant_conflict"

    def test_a_limit_refuses_in_its_shape(self, doors: Doors, way: str) -> None:
        # Whichever of the ways comes first uses the one token up.
        doors.ask(way, b"/oauth/v2/token", method=b"POST")
        answer = doors.ask(way, b"/oauth/v2/token", method=b"POST")
        document = oauth(answer)
        assert (answer.status, document["error"], document["code"]) == (
            429,
            "temporarily_unavailable",
            "rate_limited",
        )
        assert document["error_description"] == "The limit 'token' is used up; Retry-After says when to try again."
        assert len(answer.values(b"retry-after")) == 1

    @pytest.mark.parametrize("target", [b"/nowhere", b"/oauth/v2/token"])
    @pytest.mark.parametrize("fields", [(), (HTML,)])
    def test_head_gets_the_same_fields(
        self, doors: Doors, way: str, target: bytes, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        conflict = (*fields, (b"x-tenant-id", b"acme"), (b"x-request-id", b"r1"))
        get, head = doors.ask(way, target, conflict), doors.ask(way, target, conflict, method=b"HEAD")
        assert head.body == b""
        assert head.status == get.status
        for name in (b"content-type", b"content-length", b"cache-control", b"x-content-type-options"):
            assert head.values(name) == get.values(name), name

    def test_a_preflight_is_a_response_of_the_gateways_own(self, doors: Doors, way: str) -> None:
        fields = [(b"origin", b"https://app.example.com"), (b"access-control-request-method", b"POST")]
        answer = doors.ask(way, b"/v1/users", fields, method=b"OPTIONS")
        assert answer.status == 204
        assert answer.values(b"cache-control") == [b"no-store"]
        assert answer.values(b"x-content-type-options") == [b"nosniff"]

    def test_what_a_service_says_stays_as_it_is(self, doors: Doors, way: str) -> None:
        answer = doors.ask(way, b"/v1/users", [HTML])
        assert answer.status == 200
        assert answer.values(b"x-content-type-options") == []


def gateway_with(**sections: object) -> MemoryGateway:
    limits = (LimitRule("tight", ("tenant",), 1, 3600, 1, paths=(b"/oauth/v2/token",)),)
    return MemoryGateway(settings_with(limits=limits, **sections), tenants=[Tenant("koder")])


@pytest.mark.parametrize("accept", [b"Accept: text/html", b"Sec-Fetch-Mode: navigate"])
def test_a_browser_with_too_many_cookies_gets_a_page(accept: bytes) -> None:
    gateway = gateway_with()
    for crumbs in (b"Cookie: " + b"c" * 40_000, b"\r\n".join([b"Cookie: c"] * 200)):
        client = gateway.connect()
        client.send(request(b"GET", b"/oauth/v2/authorize", accept, crumbs))
        (message,) = read_messages(client.take())
        assert message.status == 431
        assert message.value(b"content-type") == b"text/html; charset=utf-8"
        assert b"Delete the cookies of this site" in message.body
    gateway.hang_up()


@pytest.mark.parametrize("size", [100, 3000])
def test_a_failure_of_a_service_has_its_shape_too(size: int) -> None:
    """Also where the head was so large that its fields are dropped once they have been passed on."""
    gateway = gateway_with()
    for target, lines, kind in (
        (b"/oauth/v2/authorize", (b"Accept: text/html",), b"text/html; charset=utf-8"),
        (b"/oauth/v2/token", (), b"application/json"),
        (b"/v1/users", (), b"application/problem+json"),
    ):
        origin = gateway.origin("identity" if kind == b"application/problem+json" else "oauth2")
        origin.answers = "refuse"
        client = gateway.connect()
        client.send(request(b"GET", target, b"X-Pad: " + b"p" * size, *lines))
        gateway.advance(1)
        (message,) = read_messages(client.take())
        assert (message.status, message.value(b"content-type")) == (502, kind)
    gateway.hang_up()


def test_http_1_0_gets_the_same() -> None:
    gateway = gateway_with()
    client = gateway.connect()
    client.send(request(b"GET", b"/oauth/v2/token", version=b"1.0", host=b"nobody.id.koder.dev"))
    (message,) = read_messages(client.take())
    assert message.problem["code"] == "unknown_tenant"
    assert message.value(b"content-type") == b"application/json"
    gateway.hang_up()


def test_each_request_of_a_connection_is_looked_at_by_itself() -> None:
    """Heads that repeat the fields of the one before share what has been found out about them, not the path."""
    gateway = gateway_with()
    client = gateway.connect()
    kinds = []
    for target, accept in (
        (b"/nowhere", b"*/*"),
        (b"/oauth/v2/token", b"*/*"),
        (b"/oauth/v2/token", b"*/*"),
        (b"/nowhere", b"*/*"),
        (b"/nowhere", b"text/html"),
        (b"/oauth/v2/token", b"text/html"),
        (b"/nowhere", b"*/*"),
    ):
        client.send(request(b"GET", target, b"Accept: " + accept, b"X-Tenant-ID: acme"))
        (message,) = read_messages(client.take())
        kinds.append((message.value(b"content-type") or b"").partition(b";")[0].rpartition(b"/")[2])
    assert kinds == [b"problem+json", b"json", b"json", b"problem+json", b"html", b"html", b"problem+json"]
    gateway.hang_up()


def test_a_reload_changes_what_a_known_head_gets() -> None:
    """The same bytes on a connection are the same head, whose shape is kept, but for one configuration only."""
    gateway = gateway_with()
    client = gateway.connect()
    types = []
    for docs_url in ("https://a.example/", "https://b.example/#"):
        policy = replace(gateway.site.policy, refusals=RefusalWriter(docs_url))
        gateway.site.replace(
            gateway.composition.resource, policy, gateway.composition.reader, client_timeouts(), client_limits()
        )
        for _ in range(2):
            client.send(request(b"GET", b"/nowhere"))
            (message,) = read_messages(client.take())
            types.append(json.loads(message.body)["type"])
    assert types == ["https://a.example/no_route"] * 2 + ["https://b.example/#no_route"] * 2
    gateway.hang_up()


def test_a_browser_that_speaks_plain_http_to_a_tls_port_is_told_what_to_write() -> None:
    plain = PlainRequest(RefusalWriter())
    answer = plain.feed(b"GET / HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: navigate\r\nX-Request-ID: r1\r\n\r\n")
    assert answer is not None
    (message,) = read_messages(answer)
    assert (message.status, message.value(b"content-type")) == (400, b"text/html; charset=utf-8")
    assert message.value(b"x-content-type-options") == b"nosniff"
    assert b"<p>Write https:// in front of the address, then try again.</p>" in message.body
    assert b"r1</code>" in message.body
