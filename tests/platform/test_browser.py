"""The application in headless Chromium: it logs in at the platform and calls it, from an origin of its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kit.browser import Browser, Page
from tests.kit.identity_platform import Platform
from tests.kit.waiting import until

READY = "document.documentElement?.dataset.ready === 'yes'"
MIB = 1 << 20
# 100 MiB of which no two are alike.
UPLOAD = """(async () => {
  const pieces = Array.from({ length: 100 }, (_, number) => new Uint8Array(1 << 20).fill(number));
  const parts = [];
  const answer = await application.upload(new Blob(pieces), (part) => parts.push(part));
  return { parts: parts.length, last: parts.at(-1), rising: parts.every((each, at) => !at || each >= parts[at - 1]),
           ...answer };
})()"""


def pin(platform: Platform) -> str:
    """What Chromium takes instead of an authority that it does not know: the hash of the certificate's key."""
    certificate = x509.load_pem_x509_certificate(platform.pair.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


@pytest.fixture(scope="module")
def browser(platform: Platform, protocol: str) -> Iterator[Browser]:
    flags = [f"--ignore-certificate-errors-spki-list={pin(platform)}"]
    flags += ["--disable-http2"] if protocol == "http/1.1" else []
    with Browser(*flags) as browser:
        yield browser


def arrived(page: Page, script: str, what: str) -> None:
    """Wait for a page that others lead to: while it leaves, it has nothing that an expression could be about."""

    def holds() -> bool:
        try:
            return bool(page.run(script))
        except AssertionError:
            return False

    until(holds, what)


def opened(platform: Platform, browser: Browser, host: str) -> Page:
    """The application's page, at a host that leads to it."""
    page = browser.page()
    page.open(f"http://{host}:{platform.application.port}/")
    page.until(READY, "the application has started")
    return page


@pytest.fixture(scope="module")
def application(platform: Platform, browser: Browser) -> Iterator[Page]:
    """The page of a user who has logged in on the platform's login page."""
    page = opened(platform, browser, "app.localhost")
    page.run("document.querySelector('#login').click()")
    arrived(page, "document.querySelector('input[name=password]') !== null", "the login page")
    page.run("document.querySelector('input[name=name]').value = 'ada'")
    page.run("document.querySelector('input[name=password]').value = 'demo'")
    page.run("document.querySelector('button').click()")
    arrived(page, f"location.host.startsWith('app.localhost') && {READY}", "back at the application")
    yield page
    page.close()


@pytest.fixture(scope="module")
def foreign(platform: Platform, browser: Browser) -> Iterator[Page]:
    """The same page at an origin that no tenant lists."""
    page = opened(platform, browser, "evil.localhost")
    yield page
    page.close()


def fetched(page: Page, platform: Platform, path: str, tenant: str = "acme", **options: Any) -> Any:
    """What a page gets to read of an answer; "unreadable" if the browser withholds it."""
    url = json.dumps(platform.issuer(tenant) + path)
    return page.run(
        f"""fetch({url}, {json.dumps(options)}).then(
            async (answer) => ({{ status: answer.status, body: await answer.json(),
                                  id: answer.headers.get('x-request-id'), limit: answer.headers.get('ratelimit') }}),
            () => 'unreadable')"""
    )


def spoken(platform: Platform, path: str) -> list[str]:
    """What clients of this path have spoken to the gateway."""
    return [line["protocol"] for line in platform.gateway.access() if line["path"] == path]


def test_who_has_logged_in(application: Page) -> None:
    assert json.loads(application.run("document.querySelector('#user').textContent")) == {
        "sub": "ada",
        "name": "ada",
        "email": "ada@example.com",
    }


def test_the_session_is_in_a_cookie_of_the_host_alone(application: Page, platform: Platform) -> None:
    found = application.call("Network.getCookies", urls=[platform.issuer("acme")])["cookies"]
    (session,) = [each for each in found if each["name"] == "__Host-session"]
    assert (session["domain"], session["path"]) == ("acme.id.localhost", "/")
    assert (session["secure"], session["httpOnly"], session["sameSite"]) == (True, True, "Lax")
    assert application.call("Network.getCookies", urls=[platform.issuer("globex")])["cookies"] == []


def test_a_page_reads_what_the_platform_answers(application: Page, platform: Platform) -> None:
    """With a preflight for Authorization, and fields that the gateway lets it read."""
    found = fetched(application, platform, "/v1/users/me", headers={"authorization": "Bearer guessed"})
    assert (found["status"], found["body"]) == (401, {"error": "invalid_token"})
    assert found["id"]
    assert found["limit"]


def test_a_page_reads_a_refusal_of_the_gateway(application: Page, platform: Platform) -> None:
    found = fetched(application, platform, "/nowhere")
    assert (found["status"], found["body"]["code"]) == (404, "no_route")


def test_a_foreign_page_reads_nothing(foreign: Page, platform: Platform) -> None:
    assert fetched(foreign, platform, "/v1/users/me") == "unreadable"
    assert fetched(foreign, platform, "/nowhere") == "unreadable"
    form = {"method": "POST", "body": "grant_type=refresh_token"}
    assert fetched(foreign, platform, "/oauth/v2/token", **form) == "unreadable"


def test_a_foreign_page_may_not_ask_with_a_header(foreign: Page, platform: Platform) -> None:
    """Its preflight is refused, so the request itself never comes."""
    asked = fetched(foreign, platform, "/v1/users/me", headers={"x-asked": "twice"})
    assert asked == "unreadable"
    assert any("preflight" in line for line in foreign.console)


def test_every_page_reads_public_documents(foreign: Page, platform: Platform) -> None:
    for path in ("/.well-known/openid-configuration", "/oauth/v2/keys"):
        assert fetched(foreign, platform, path)["status"] == 200
    assert fetched(foreign, platform, "/oauth/v2/keys", credentials="include") == "unreadable"


def test_a_tenants_page_is_foreign_to_another_tenant(application: Page, platform: Platform) -> None:
    assert fetched(application, platform, "/v1/users/me", "globex") == "unreadable"


def test_an_upload_of_100_mib_with_progress(application: Page) -> None:
    expected = hashlib.sha256()
    for number in range(100):
        expected.update(bytes([number]) * MIB)
    found = application.run(UPLOAD)
    assert (found["status"], found["bytes"], found["sha256"]) == (200, 100 * MIB, expected.hexdigest())
    assert (found["tenant"], found["rising"], found["last"]) == ("acme", True, 1)
    assert found["parts"] > 1
    assert found["id"]


def test_an_upload_that_is_too_large_is_a_refusal_that_the_page_reads(
    application: Page, platform: Platform, protocol: str
) -> None:
    upload = "application.upload(new Blob(Array(129).fill(new Uint8Array(1 << 20))))"
    # Over HTTP/1.1 the gateway reads on for a while behind its refusal, so that this is not lost to a reset. Another
    # proxy in front may close at once: then the browser may see that first.
    ours = protocol == "http/2" or platform.door in ("direct", "haproxy")
    for _ in range(1 if ours else 10):
        found = application.run(f"{upload}.catch((error) => ({{ lost: String(error) }}))")
        if "lost" not in found:
            break
    assert (found.get("status"), found.get("code")) == (413, "body_too_large"), found


def test_server_sent_events(application: Page) -> None:
    assert application.run("application.events(3)") == [{"tick": tick, "tenant": "acme"} for tick in (1, 2, 3)]


def test_a_websocket(application: Page, platform: Platform, protocol: str) -> None:
    # With cookies, as a WebSocket has them: the connection of such a request can carry a WebSocket as a stream.
    fetched(application, platform, "/v1/users/me", credentials="include")
    before = len(spoken(platform, "/v1/users/socket"))
    texts = ["one", "x" * 70_000, "three"]
    found = application.run(f"application.socket({json.dumps(texts)})")
    assert json.loads(found["found"][0]) == {"sub": "ada", "tenant": "acme"}
    assert found["found"][1:] == texts
    assert (found["code"], found["wasClean"]) == (1005, True)
    if platform.door in ("direct", "haproxy"):
        lines = until(lambda: spoken(platform, "/v1/users/socket")[before:], "its line is written")
        assert lines == [protocol.upper()]


def test_it_was_spoken_as_asked(application: Page, platform: Platform, protocol: str) -> None:
    """The page itself is of another origin, so a page of the platform's is asked what it came by."""
    application.open(platform.issuer("acme") + "/.well-known/openid-configuration")
    spoken = application.run("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    assert spoken == {"http/1.1": "http/1.1", "http/2": "h2"}[protocol]
