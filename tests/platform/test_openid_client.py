"""npm's openid-client, a certified client of OpenID Connect: each flow of it through the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.kit.identity_platform import Platform
from tests.kit.waiting import until
from tests.platform.clients import on_this_machine

PROGRAM = Path(__file__).with_name("openid_client.mjs")
REFUSED = {"status": 400, "error": "invalid_grant"}


@pytest.fixture(scope="session")
def flows(platform: Platform, protocol: str) -> dict[str, Any]:
    """What came of each flow."""
    found: dict[str, Any] = platform.node(
        PROGRAM,
        {
            "acme": platform.issuer("acme"),
            "globex": platform.issuer("globex"),
            "ca": str(platform.authority),
            "http2": protocol == "http/2",
            "party": f"http://localhost:{platform.application.port}",
            "secrets": {tenant: platform.secret(tenant) for tenant in ("acme", "globex")},
        },
    )
    return found


def result(flows: dict[str, Any], name: str) -> Any:
    """What came of a flow, which must not have failed."""
    assert "error" not in flows[name], flows[name]["error"]
    return flows[name]["result"]


def test_discovery_names_each_tenants_own_issuer(flows: dict[str, Any], platform: Platform) -> None:
    found = result(flows, "discovery")
    for tenant in ("acme", "globex"):
        issuer = platform.issuer(tenant)
        assert found[tenant]["issuer"] == issuer
        urls = found[tenant]["urls"]
        assert {"authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"} <= set(urls)
        assert [url for url in urls.values() if not url.startswith(f"{issuer}/")] == []


def test_code_with_pkce(flows: dict[str, Any], platform: Platform) -> None:
    found = result(flows, "code")
    issuer = platform.issuer("acme")
    assert (found["claims"]["iss"], found["claims"]["aud"], found["claims"]["sub"]) == (issuer, "web", "ada")
    assert found["user"] == {"sub": "ada", "name": "ada", "email": "ada@example.com"}
    assert (found["at"]["active"], found["at"]["iss"], found["at"]["client_id"]) == (True, issuer, "web")
    assert set(found["cookies"]) == {"__Host-session", "__Host-session.sig"}


def test_a_token_of_one_tenant_is_nothing_to_another(flows: dict[str, Any]) -> None:
    assert result(flows, "code")["foreign"] == {"active": False}


def test_a_service_learns_who_asks_and_where(flows: dict[str, Any], platform: Platform) -> None:
    me = result(flows, "code")["me"]
    host = platform.issuer("acme").removeprefix("https://")
    assert (me["sub"], me["tenant"]) == ("ada", "acme")
    assert (me["host"], me["name"], me["scheme"]) == (host, host, "https")


def test_a_stolen_code_is_worth_nothing(flows: dict[str, Any]) -> None:
    assert result(flows, "stolenCode") == REFUSED


def test_form_post(flows: dict[str, Any], platform: Platform) -> None:
    found = result(flows, "formPost")
    assert found["action"] == f"http://localhost:{platform.application.port}/callback"
    assert found["claims"]["iss"] == platform.issuer("acme")


def test_refresh_tokens_rotate_and_a_replayed_one_ends_them_all(flows: dict[str, Any]) -> None:
    found = result(flows, "refresh")
    assert (found["rotated"], found["sub"]) == (True, "ada")
    assert (found["replayed"], found["ended"]) == (REFUSED, REFUSED)


def test_a_revoked_token(flows: dict[str, Any]) -> None:
    found = result(flows, "revocation")
    assert found["at"] == {"active": False}
    assert found["user"]["status"] == 401


def test_a_device_waits_until_its_user_has_logged_in(flows: dict[str, Any], platform: Platform) -> None:
    found = result(flows, "device")
    assert found["at"] == f"{platform.issuer('acme')}/oauth/v2/device"
    assert found["early"] == {"status": 400, "error": "authorization_pending"}
    assert found["done"] == 200
    assert (found["claims"]["sub"], found["claims"]["aud"]) == ("ada", "tv")


def test_a_wrong_password_counts(flows: dict[str, Any]) -> None:
    assert result(flows, "wrongPassword") == {"status": 401, "limited": True}


def test_logging_out_ends_the_session_and_tells_the_application(flows: dict[str, Any], platform: Platform) -> None:
    found = result(flows, "logout")
    assert "__Host-session" in found["before"]
    assert found["after"] == []
    assert (found["same"], found["refresh"]) == (True, REFUSED)
    issuer = platform.issuer("acme")
    with on_this_machine(), httpx2.Client(verify=platform.trust()) as client:
        keys = KeySet.import_key_set(client.get(f"{issuer}/oauth/v2/keys").json())
    tokens = [jwt.decode(form["logout_token"], keys) for form in platform.application.forms("/backchannel")]
    (token,) = [token for token in tokens if token.claims["sid"] == found["sid"]]
    assert (token.claims["iss"], token.claims["aud"], token.claims["sub"]) == (issuer, "web", "ada")
    assert token.claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}


def test_all_of_it_was_spoken_as_asked(flows: dict[str, Any], platform: Platform, protocol: str) -> None:
    """HAProxy passes on what its clients speak; nginx speaks HTTP/1.1 to the gateway, and Caddy HTTP/2."""
    spoken = {"nginx": "http/1.1", "caddy": "http/2"}.get(platform.door, protocol)
    assert result(flows, "discovery")
    assert until(lambda: platform.protocols(f"node {protocol}"), "its lines are written") == {spoken.upper()}
