"""A gateway that has keys of its configuration from the environment."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.waiting import until


def test_the_command_line_wins_and_a_reload_keeps_what_the_environment_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KODER_GATEWAY_LISTEN__PORT", "unix:port-of-the-environment.sock")
    monkeypatch.setenv("KODER_GATEWAY_TENANTS__BASE_DOMAIN", "environment.example")
    text = configuration({}, {"tenants": {"default": "acme"}})
    with GatewayProcess(tmp_path, text) as gateway:
        assert "port-of-the-environment" not in gateway.log()

        def status(host: bytes) -> int:
            with Client.connect(gateway.ports[0]) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host)
                return client.read().status

        assert status(b"environment.example") == 404
        assert status(b"id.test") == 421
        gateway.config.write_text(text.replace('"acme"', '""'))
        gateway.signal(signal.SIGHUP)
        # The tenant of the base domain is gone; the base domain is still that of the environment.
        until(lambda: status(b"environment.example") == 400, "the reload")
