"""What the metrics page says of a gateway that serves: real exchanges, handshakes, reloads and tenants."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.kit.clients import BASE_DOMAIN, HOST, Client, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin
from tests.kit.waiting import until

BOTH = (GatewayProcess.PLAIN, GatewayProcess.TLS)
TENANTS = "".join(f'[[tenant]]\nslug = "{slug}"\n' for slug in ("acme", "globex"))
SECTIONS = {"tenants": {"registry": "tenants.toml"}, "metrics": {"tenants": 1}}

Labels = frozenset[tuple[str, str]]


def family(gateway: GatewayProcess, name: str) -> dict[Labels, float]:
    """The samples of this name that are not 0, by their labels; the whole page is read by the reference parser."""
    families = text_string_to_metric_families(gateway.ask_admin("/metrics")[1])
    samples = [sample for each in families for sample in each.samples if sample.name == f"koder_gateway_{name}"]
    return {frozenset(sample.labels.items()): sample.value for sample in samples if sample.value}


def labels(**values: str) -> Labels:
    return frozenset(values.items())


def asked_as(tenant: str, client: Client) -> int:
    """The status that this tenant gets."""
    client.send(request("GET", "/a").replace(HOST.encode(), f"{tenant}.{BASE_DOMAIN}".encode()))
    return client.read().status


def digest(gateway: GatewayProcess) -> str:
    return hashlib.sha256(gateway.config.read_bytes()).hexdigest()


def test_the_page_of_a_gateway_that_serves_and_is_reloaded(tmp_path: Path) -> None:
    (tmp_path / "tenants.toml").write_text(TENANTS)
    with (
        Origin() as origin,
        GatewayProcess(tmp_path, configuration({"a": origin.url}, SECTIONS), ports=BOTH) as gateway,
    ):
        with gateway.connect(tls=True) as client:
            assert [client.ask(method, "/a").status for method in ("GET", "GET", "POST")] == [200] * 3
        with gateway.connect() as client:
            assert asked_as("globex", client) == 200
            assert client.ask("GET", "/b").status == 404
            assert asked_as("nobody", client) == 404
        until(lambda: sum(family(gateway, "requests_total").values()) == 6, "all are counted")
        assert family(gateway, "route_requests_total") == {
            labels(route="/a", method="GET", status="2xx"): 3,
            labels(route="/a", method="POST", status="2xx"): 1,
            labels(route="", method="GET", status="4xx"): 2,
        }
        assert family(gateway, "protocol_requests_total") == {labels(protocol="http/1.1"): 6}
        assert family(gateway, "tenant_requests_total") == {
            labels(tenant="acme", status="2xx"): 3,
            labels(tenant="acme", status="4xx"): 1,
            labels(tenant="other", status="2xx"): 1,
            labels(tenant="", status="4xx"): 1,
        }
        assert family(gateway, "service_first_byte_seconds_count") == {labels(service="a"): 4}
        ((handshake, count),) = family(gateway, "tls_handshakes_total").items()
        assert count == 1
        assert labels(kind="full", version="TLSv1.3") < handshake
        until(lambda: family(gateway, "event_loop_lag_seconds_count"), "the periodic timer has fired")
        assert family(gateway, "config_info") == {labels(sha256=digest(gateway)): 1}
        before = family(gateway, "config_last_reload_success_timestamp_seconds")

        # Another route takes the place of this one.
        served = digest(gateway)
        gateway.config.write_text("nonsense")
        gateway.signal(signal.SIGHUP)
        until(lambda: not family(gateway, "config_last_reload_successful"), "the reload is refused")
        assert family(gateway, "config_info") == {labels(sha256=served): 1}
        assert family(gateway, "config_last_reload_success_timestamp_seconds") == before
        gateway.config.write_text(configuration({"c": origin.url}, SECTIONS))
        gateway.signal(signal.SIGHUP)
        until(lambda: family(gateway, "config_info") == {labels(sha256=digest(gateway)): 1}, "the reload is done")
        assert family(gateway, "config_last_reload_successful") == {labels(): 1}
        (then,), (now,) = before.values(), family(gateway, "config_last_reload_success_timestamp_seconds").values()
        assert now > then
        assert {dict(each)["route"] for each in family(gateway, "route_requests_total")} == {""}
        assert family(gateway, "tenant_requests_total")[labels(tenant="acme", status="2xx")] == 3, "tenants stay"
