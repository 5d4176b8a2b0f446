"""Authlib, by httpx2: the same platform as an application in Python sees it, and what it says of its clients."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.kit.identity_platform import Platform
from tests.kit.waiting import until
from tests.platform.clients import on_this_machine

SCOPE = "openid profile email"
# None of the addresses that the example trusts.
STRANGER = "127.0.0.9"


class Application:
    """One that lets its users log in at `acme`."""

    def __init__(self, platform: Platform, protocol: str) -> None:
        self.issuer = platform.issuer("acme")
        self.callback = f"http://localhost:{platform.application.port}/callback"
        self.agent = f"authlib {protocol}"
        self._options: dict[str, Any] = {
            "verify": platform.trust(),
            "http1": protocol == "http/1.1",
            "http2": protocol == "http/2",
            "headers": {"User-Agent": self.agent},
        }
        self.client = OAuth2Client(
            "web",
            platform.secret("acme"),
            scope=SCOPE,
            redirect_uri=self.callback,
            code_challenge_method="S256",
            **self._options,
        )
        self.metadata = self.document(f"{self.issuer}/.well-known/openid-configuration")

    def document(self, url: str) -> dict[str, Any]:
        """What anybody may read there."""
        found: dict[str, Any] = self.client.request("GET", url, withhold_token=True).json()
        return found

    def close(self) -> None:
        """Close its connections."""
        self.client.close()

    def logged_in(self) -> tuple[dict[str, Any], str]:
        """The tokens of a user who logs in, and the nonce of the request."""
        verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe()
        url, _ = self.client.create_authorization_url(
            self.metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce
        )
        with httpx2.Client(**self._options) as browser:
            page = browser.get(url, follow_redirects=True)
            (action,) = re.findall(r'<form method="post" action="([^"]*)"', page.text)
            answer = browser.post(page.url.join(html.unescape(action)), data={"name": "ada", "password": "demo"})
            while not (to := answer.headers["Location"]).startswith(self.callback):
                answer = browser.get(to)
        tokens = self.client.fetch_token(
            self.metadata["token_endpoint"], authorization_response=to, code_verifier=verifier
        )
        return tokens, nonce

    def introspected(self, token: str) -> dict[str, Any]:
        """What the platform says of a token."""
        answer = self.client.introspect_token(self.metadata["introspection_endpoint"], token=token)
        found: dict[str, Any] = answer.json()
        return found

    def user(self) -> httpx2.Response:
        """Userinfo with the client's token."""
        answer: httpx2.Response = self.client.get(self.metadata["userinfo_endpoint"])
        return answer


@pytest.fixture(scope="module")
def application(platform: Platform, protocol: str) -> Iterator[Application]:
    with on_this_machine():
        application = Application(platform, protocol)
        yield application
        application.close()


def test_logging_in(application: Application) -> None:
    tokens, nonce = application.logged_in()
    keys = KeySet.import_key_set(application.document(application.metadata["jwks_uri"]))
    claims = jwt.decode(tokens["id_token"], keys).claims
    assert (claims["iss"], claims["aud"], claims["sub"]) == (application.issuer, "web", "ada")
    assert claims["nonce"] == nonce
    assert application.user().json() == {"sub": "ada", "name": "ada", "email": "ada@example.com"}
    assert application.introspected(tokens["access_token"])["active"] is True


def test_refreshing_and_revoking(application: Application) -> None:
    tokens, _ = application.logged_in()
    endpoint = application.metadata["token_endpoint"]
    next_ones = application.client.refresh_token(endpoint, refresh_token=tokens["refresh_token"])
    assert next_ones["refresh_token"] != tokens["refresh_token"]
    answer = application.client.revoke_token(
        application.metadata["revocation_endpoint"], token=next_ones["access_token"]
    )
    assert answer.status_code == 200
    assert application.introspected(next_ones["access_token"]) == {"active": False}
    refused = application.user()
    assert (refused.status_code, refused.headers["WWW-Authenticate"].partition(" ")[0]) == (401, "Bearer")
    with pytest.raises(OAuthError, match="invalid_grant"):
        application.client.refresh_token(endpoint, refresh_token=tokens["refresh_token"])


def test_a_client_that_is_not_who_it_says(platform: Platform, application: Application) -> None:
    """A guessed secret."""
    with (
        OAuth2Client("web", "guessed", verify=platform.trust()) as client,
        pytest.raises(OAuthError, match="invalid_client"),
    ):
        client.fetch_token(application.metadata["token_endpoint"], grant_type="client_credentials")


def test_it_was_spoken_as_asked(application: Application, platform: Platform, protocol: str) -> None:
    spoken = {"nginx": "http/1.1", "caddy": "http/2"}.get(platform.door, protocol)
    assert until(lambda: platform.protocols(application.agent), "its lines are written") == {spoken.upper()}


@pytest.fixture
def stranger(platform: Platform, protocol: str) -> Iterator[httpx2.Client]:
    """A client at an address that is nobody's proxy."""
    transport = httpx2.HTTPTransport(
        verify=platform.trust(), http1=protocol == "http/1.1", http2=protocol == "http/2", local_address=STRANGER
    )
    with on_this_machine(), httpx2.Client(transport=transport) as client:
        yield client


def test_what_a_client_says_of_itself_is_not_believed(
    stranger: httpx2.Client, application: Application, platform: Platform
) -> None:
    tokens, _ = application.logged_in()
    forged = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "globex.id.localhost",
        "Forwarded": "for=203.0.113.7;proto=http;host=globex.id.localhost",
        "X-Real-IP": "203.0.113.7",
        "X_Tenant_ID": "globex",
    }
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    seen = stranger.get(f"{application.issuer}/v1/users/me", headers={**forged, **bearer}).json()
    assert (seen["tenant"], seen["scheme"]) == ("acme", "https")
    assert seen["host"] == seen["name"] == application.issuer.removeprefix("https://")
    # The proxy that speaks HTTP is on the path, the one that passes on connections is not.
    path = [STRANGER, "127.0.0.1"] if platform.door in ("nginx", "caddy") else [STRANGER]
    assert seen["address"].split(", ") == path


def test_a_tenant_that_is_not_the_hosts(stranger: httpx2.Client, application: Application) -> None:
    answer = stranger.get(f"{application.issuer}/.well-known/openid-configuration", headers={"X-Tenant-ID": "globex"})
    assert (answer.status_code, answer.json()["code"]) == (400, "tenant_conflict")


def test_who_a_client_is_in_the_access_log(
    stranger: httpx2.Client, application: Application, platform: Platform
) -> None:
    answer = stranger.get(f"{application.issuer}/.well-known/openid-configuration")
    assert answer.json()["issuer"] == application.issuer
    number = answer.headers["X-Request-ID"]

    def found() -> list[dict[str, Any]]:
        return [line for line in platform.gateway.access() if line["request_id"] == number]

    (line,) = until(found, "the line is written")
    assert (line["client"], line["tenant"]) == (STRANGER, "acme")
