"""Domains of tenants get their certificates from a real authority, by a gateway process and both challenges."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.kit.acme_gateways import AcmeGateway, Stage, thorough
from tests.kit.authority import write_certificate
from tests.kit.clients import BASE_DOMAIN
from tests.kit.gateways import tool

ALPHA, BETA = "login.alpha.example", "id.beta.example"
TWO_WORKERS = {"listen": {"workers": 2}, "limits_store": {"url": "memory:"}}


def ask(gateway: AcmeGateway, name: str, context: ssl.SSLContext) -> bytes:
    """What a client that trusts the authority reads of the answer for a name."""
    with (
        socket.create_connection(("127.0.0.1", gateway.port), 20) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.sendall(f"GET /nowhere HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        return secure.recv(4096)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of the gateway."""
    return subprocess.run([tool("koder-gateway"), *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("http", [False, True], ids=["tls-alpn-01", "http-01"])
def test_a_domain_gets_its_certificate(tmp_path: Path, http: bool) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.gateway({"alpha": [ALPHA]}, http=http, sections=TWO_WORKERS) as gateway,
    ):
        # Whichever worker takes the connection.
        gateway.wait(lambda: all(gateway.serves(ALPHA) for _ in range(20)), "both workers have it")
        assert ask(gateway, ALPHA, stage.pebble.trust()).startswith(b"HTTP/1.1 404 ")
        assert stage.authority.ordered() == [ALPHA]
        assert gateway.is_in(ALPHA, "issued")()
        for path in gateway.state.rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        # Challenges are not kept, and no key is logged.
        gateway.wait(lambda: not [*gateway.state.glob("challenges/*/*")], "challenges are removed")
        assert "PRIVATE" not in gateway.log()
        account = json.loads(next(gateway.state.glob("account-*.json")).read_bytes())
        assert account["key"]["d"] not in gateway.log()


def test_it_is_to_be_seen(tmp_path: Path) -> None:
    with (
        Stage(tmp_path, blocked=[BETA]) as stage,
        stage.gateway({"alpha": [ALPHA], "beta": [BETA]}) as gateway,
    ):
        gateway.wait_until_served(ALPHA)
        gateway.wait(gateway.is_in(BETA, "failed"), "the other one is refused")
        gateway.wait(lambda: gateway.count("issued") == 1, "an order is counted")
        listed = run("certificates", "--config", str(gateway.config), "--json")
        text = run("certificates", "--config", str(gateway.config))
        assert ALPHA in listed.stdout, listed
        assert BETA in listed.stdout, listed
        assert "Pebble Intermediate" in text.stdout, text
        # The authority's own words.
        assert gateway.record(BETA)["last_fault"] in text.stdout, text
        explained = run("explain", "--config", str(gateway.config), f"https://{ALPHA}/s")
        assert "acme" in explained.stdout.lower(), explained
        assert ALPHA in gateway.ask_admin("/status")[1]


@thorough
@pytest.mark.parametrize("keys", ["ecdsa", "rsa"])
def test_a_tenant_that_comes_later_gets_one_too(tmp_path: Path, keys: str) -> None:
    with Stage(tmp_path) as stage, stage.gateway({"alpha": [ALPHA]}, acme={"keys": keys}) as gateway:
        (first,) = gateway.wait_until_served(ALPHA)
        gateway.register({"alpha": [ALPHA], "beta": [BETA]})
        (second,) = gateway.wait_until_served(BETA)
        assert stage.authority.ordered() == [ALPHA, BETA]
        kind = ec.EllipticCurvePublicKey if keys == "ecdsa" else rsa.RSAPublicKey
        assert isinstance(first.public_key(), kind)
        assert first.public_key() != second.public_key()
        # One account for both.
        assert stage.authority.count("account") == 1


@thorough
def test_names_of_the_configuration_and_foreign_scripts(tmp_path: Path) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.gateway(
            {"alpha": ["xn--bcher-kva.example"]}, acme={"names": [f"www.{BASE_DOMAIN}.example"]}
        ) as gateway,
    ):
        gateway.wait_until_served("xn--bcher-kva.example", f"www.{BASE_DOMAIN}.example")
        assert sorted(stage.authority.ordered()) == [f"www.{BASE_DOMAIN}.example", "xn--bcher-kva.example"]


@thorough
def test_external_accounts(tmp_path: Path) -> None:
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    (tmp_path / "eab.key").write_text(key + "\n")
    (tmp_path / "eab.key").chmod(0o600)
    sections = {"acme.eab": {"key_id": "kid-1", "key_file": str(tmp_path / "eab.key")}}
    with (
        Stage(tmp_path, external={"kid-1": key}) as stage,
        stage.gateway({"alpha": [ALPHA]}, sections=sections) as gateway,
    ):
        gateway.wait_until_served(ALPHA)


@thorough
def test_without_an_external_account_it_says_so(tmp_path: Path) -> None:
    with (
        Stage(
            tmp_path, external={"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
        ) as stage,
        stage.gateway({"alpha": [ALPHA]}) as gateway,
    ):
        gateway.wait(lambda: "acme.eab" in gateway.log(), "the log says what to write")
        assert stage.authority.ordered() == []


@thorough
def test_suspended_and_removed_tenants_get_none(tmp_path: Path) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.gateway({"alpha": [ALPHA], "beta": [BETA]}, suspended=["beta"]) as gateway,
    ):
        gateway.wait_until_served(ALPHA)
        assert gateway.record(BETA) == {}
        gateway.register({"beta": [BETA]})
        gateway.wait_until_served(BETA)
        gateway.register({"beta": [BETA], "gamma": ["gamma.example"]}, suspended=["beta"])
        gateway.wait_until_served("gamma.example")
        # What was issued stays; nothing is ordered for it again.
        assert gateway.serves(BETA) is not None
        assert stage.authority.ordered() == [ALPHA, BETA, "gamma.example"]


@thorough
def test_a_domain_that_two_tenants_claim_has_one_order(tmp_path: Path) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.gateway({"alpha": [ALPHA], "beta": [BETA]}) as gateway,
    ):
        gateway.wait_until_served(ALPHA, BETA)
        gateway.register({"alpha": [ALPHA], "beta": [ALPHA, BETA], "gamma": ["gamma.example", ALPHA]})
        gateway.wait_until_served("gamma.example")
        assert sorted(stage.authority.ordered()) == ["gamma.example", BETA, ALPHA]


@thorough
def test_a_domain_that_nobody_had_before_two_claimed_it_has_none(tmp_path: Path) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.gateway({"alpha": [ALPHA], "beta": [ALPHA, BETA]}) as gateway,
    ):
        gateway.wait_until_served(BETA)
        assert stage.authority.ordered() == [BETA]
        # The tenant to whom it belongs has it to itself now.
        gateway.register({"alpha": [ALPHA], "beta": [BETA]})
        gateway.wait_until_served(ALPHA)


@thorough
def test_what_an_operator_brought_is_not_ordered(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        certs = tmp_path / "gateway" / "certs"
        write_certificate(certs, ALPHA).rename(certs / "alpha.pem") if certs.exists() else None
        write_certificate(certs, ALPHA)
        (certs / "default.pem").rename(certs / "alpha.pem")
        write_certificate(certs, BASE_DOMAIN, f"*.{BASE_DOMAIN}")
        with stage.gateway({"alpha": [ALPHA], "beta": [BETA]}) as gateway:
            gateway.wait_until_served(BETA)
            assert stage.authority.ordered() == [BETA]


@thorough
def test_strict_names_until_they_have_one(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage, stage.authority.held("new-order") as hold:
        sections = {"tls": {"strict_sni": True}}
        with stage.gateway({"alpha": [ALPHA]}, sections=sections) as gateway:
            hold.come()
            assert gateway.shown(ALPHA) is None
            hold.release()
            gateway.wait(lambda: gateway.shown(ALPHA), "it is shown")
            assert gateway.serves(ALPHA) is not None
            assert gateway.shown("strangers.example") is None


@thorough
def test_until_then_names_get_the_default_certificate(tmp_path: Path) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.authority.held("finalize") as hold,
        stage.gateway({"alpha": [ALPHA]}) as gateway,
    ):
        hold.come()
        found = gateway.shown(ALPHA)
        assert found is not None
        assert found.issuer == found.subject
        hold.release()
        gateway.wait_until_served(ALPHA)


@thorough
@pytest.mark.parametrize("http", [False, True], ids=["tls-alpn-01", "http-01"])
def test_strangers_cost_nothing(tmp_path: Path, http: bool) -> None:
    with (
        Stage(tmp_path) as stage,
        stage.authority.held("challenge", after=True) as hold,
        stage.gateway({"alpha": [ALPHA]}, http=http) as gateway,
    ):
        hold.come()
        before = gateway.log()
        for number in range(50):
            assert gateway.shown(f"n{number}.strangers.example", "acme-tls/1") is None
            assert gateway.shown("../../account", "acme-tls/1") is None
        if http:
            with gateway.connect(1) as client:
                for path in ("x", "../../account", "%2e%2e/names", "A" * 43):
                    assert client.ask("GET", f"/.well-known/acme-challenge/{path}").status in (308, 404, 400)
        assert len(gateway.log()) - len(before) < 4000
        hold.release()
        gateway.wait_until_served(ALPHA)
        assert stage.authority.ordered() == [ALPHA]
        assert [*gateway.records()] == [ALPHA]
