"""Challenges and issued certificates at the ports of a running gateway, as an authority and clients see them."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from koder_gateway.acme.layout import Layout
from tests.kit.certificates import ACME_IDENTIFIER, certificate_pem, challenge_pem, key_pem
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.waiting import PATIENCE, until

NAME = "login.koder.example"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
PROOF = TOKEN + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n"
# Nobody answers there, and nothing is ordered: the files of an order are put in place by hand.
DIRECTORY = "https://127.0.0.1:9/directory"


def settings(challenge="tls-alpn-01", **sections):
    acme = {"directory": DIRECTORY, "accept_terms": True, "challenge": challenge}
    return configuration({"s": "http://127.0.0.1:9"}, {"acme": acme, **sections})


def layout_in(folder: Path) -> Layout:
    layout = Layout.below(folder / "state")
    for each in layout.folders:
        each.mkdir(parents=True, exist_ok=True)
    return layout


def put(path: Path, data: bytes) -> None:
    """Put a file in place by one rename."""
    other = path.with_name(f".{path.name}-new")
    other.write_bytes(data)
    os.replace(other, path)


def issue(layout: Layout, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    put(layout.certificate(name), key_pem(key) + certificate_pem(key, name))
    put(layout.version, b"1")


def shown(port, name=NAME, *, alpn=("acme-tls/1",), version=None, first=b""):
    """The certificate, the protocol, and what follows the handshake."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        plain.sendall(first)
        with context.wrap_socket(plain, server_hostname=name) as client:
            leaf = x509.load_der_x509_certificate(client.getpeercert(binary_form=True))
            protocol = client.selected_alpn_protocol()
            rest = None
            if protocol == "acme-tls/1":
                rest = client.recv(1 << 10)
            return leaf, protocol, rest


def assert_answered(port, **options):
    leaf, protocol, rest = shown(port, **options)
    assert any(each.oid == ACME_IDENTIFIER for each in leaf.extensions)
    assert (protocol, rest) == ("acme-tls/1", b"")


def names_of(port, name):
    leaf, _, _ = shown(port, name, alpn=("http/1.1",))
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


@pytest.mark.parametrize(("reactor", "workers", "strict"), [("uvloop", 0, False), ("epoll", 0, True), ("", 2, True)])
def test_any_gateway_of_the_folder_answers_a_challenge_at_each_port(tmp_path, reactor, workers, strict):
    layout = layout_in(tmp_path)
    put(layout.alpn_challenge(NAME), challenge_pem(NAME))
    sections = {"tls": {"strict_sni": strict}, "listen": {"workers": workers} if workers else {}}
    ports = (GatewayProcess.TLS, "haproxy:ssl:0:interface=127.0.0.1")
    sections["listen"]["trusted_proxies"] = ["127.0.0.1/32"]
    with GatewayProcess(tmp_path, settings(**sections), ports=ports, reactor=reactor) as gateway:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for number, port in enumerate(gateway.ports[:2]):
                assert_answered(port, version=version, first=LINE if number else b"")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                shown(gateway.ports[0], "other.example", version=version)
        with gateway.connect(0, tls=True) as client:
            assert client.ask("GET", "/s").status == 502
        for result, count in (("answered", 4), ("unknown", 2)):
            counted = f'koder_gateway_acme_challenges_total{{challenge="tls-alpn-01",result="{result}"}}'
            # Workers publish theirs once a second.
            until(lambda counted=counted, count=count: gateway.metrics().get(counted) == count, counted)
        layout.alpn_challenge(NAME).unlink()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shown(gateway.ports[0])


def test_an_issued_certificate_goes_live_on_every_worker(tmp_path):
    layout = layout_in(tmp_path)
    sections = {"listen": {"workers": 2}}
    with GatewayProcess(tmp_path, settings(**sections), ports=(GatewayProcess.TLS,)) as gateway:
        (port, *_) = gateway.ports
        assert NAME not in names_of(port, NAME)
        issue(layout, NAME)
        # Each worker takes some of the connections.
        until(lambda: all(names_of(port, NAME) == [NAME] for _ in range(20)), "every worker serves it")
        before = shown(port, NAME, alpn=("http/1.1",))[0].serial_number
        issue(layout, NAME)
        until(
            lambda: all(shown(port, NAME, alpn=("http/1.1",))[0].serial_number != before for _ in range(20)),
            "every worker serves the renewed one",
        )


def test_with_strict_sni_a_name_is_refused_until_its_certificate_is_there(tmp_path):
    layout = layout_in(tmp_path)
    with GatewayProcess(
        tmp_path, settings(tls={"strict_sni": True}), ports=(GatewayProcess.TLS,), reactor="uvloop"
    ) as gateway:
        (port, *_) = gateway.ports
        with pytest.raises(ssl.SSLError, match="unrecognized name"):
            names_of(port, NAME)
        issue(layout, NAME)

        def served():
            try:
                return names_of(port, NAME) == [NAME]
            except ssl.SSLError:
                return False

        until(served, "the certificate is served")


def test_a_reload_begins_and_ends_it(tmp_path):
    layout = layout_in(tmp_path)
    issue(layout, NAME)
    put(layout.alpn_challenge(NAME), challenge_pem(NAME))
    plain = configuration({"s": "http://127.0.0.1:9"})
    with GatewayProcess(tmp_path, plain, ports=(GatewayProcess.TLS,)) as gateway:
        (port, *_) = gateway.ports
        assert NAME not in names_of(port, NAME)
        with pytest.raises(ssl.SSLError):
            shown(port)
        gateway.config.write_text(settings())
        gateway.signal(1)
        until(lambda: names_of(port, NAME) == [NAME], "the issued certificate is served")
        assert_answered(port)
        gateway.config.write_text(plain)
        gateway.signal(1)
        until(lambda: NAME not in names_of(port, NAME), "the default is served again")
        with pytest.raises(ssl.SSLError):
            shown(port)


def test_the_plain_port_shows_a_challenge(tmp_path):
    layout = layout_in(tmp_path)
    put(layout.http_challenge(TOKEN), PROOF.encode())
    put(layout.alpn_challenge(NAME), challenge_pem(NAME))
    config = settings("http-01", listen={"redirect_port": GatewayProcess.PLAIN})
    with GatewayProcess(tmp_path, config, ports=(GatewayProcess.TLS,), redirects=(GatewayProcess.PLAIN,)) as gateway:
        target = f"/.well-known/acme-challenge/{TOKEN}"
        with Client.connect(gateway.ports[1]) as client:
            answer = client.ask("GET", target)
            assert (answer.status, answer.body) == (200, PROOF.encode())
        # The other challenge is not this gateway's.
        with pytest.raises(ssl.SSLError):
            shown(gateway.ports[0])
