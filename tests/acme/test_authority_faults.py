"""Authorities that fail in every way that they can: names wait, requests and certificates know nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from koder_gateway.acme.authority import asked_patience
from tests.kit.acme_gateways import AcmeGateway, Stage, thorough
from tests.kit.faulty_authority import Fault, page, problem

ALPHA, BETA = "login.alpha.example", "id.beta.example"
STEPS = ["directory", "account", "authorization", "challenge", "finalize", "certificate"]
HTML = page("200 OK", b"<html><title>Maintenance</title>\x1b[31m" + b"x" * 10_000)
LIMITED = problem(
    "429 Too Many Requests",
    "rateLimited",
    "too many new orders recently",
    "Retry-After: 3600",
    'Link: <https://x/>;rel="help"',
)
# How an authority fails, and what of it the log must have: nothing the authority says may be left as it is there.
FAULTS = {
    "500": (problem("500 Internal Server Error", "serverInternal", "the database is away"), "the database is away"),
    "503": (page("503 Service Unavailable", b"down", "text/plain", "Retry-After: 120"), "503"),
    "HTML": (HTML, ""),
    "no JSON": (page("200 OK", b'{"newOrder": ', "application/json"), ""),
    "another JSON": (page("200 OK", b'[["newOrder"], 7, null]', "application/json"), ""),
    "no HTTP": (b"\x16\x03\x01 nonsense\r\n\r\n", ""),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", ""),
    "429": (LIMITED, "too many new orders recently"),
    "escapes": (problem("403 Forbidden", "unauthorized", "no\r\n2026 [acme#error] forged \x1b[31m"), "forged"),
}


def assert_unharmed(gateway: AcmeGateway) -> None:
    """It serves, and its log is in lines of its own."""
    assert gateway.ask_admin("/readyz")[0] == 200
    log = gateway.log()
    assert "\x1b" not in log
    assert "Traceback" not in log, log
    assert not [line for line in log.splitlines() if line.startswith("2026 [acme#error] forged")]


@thorough
@pytest.mark.parametrize(
    ("kind", "fault"),
    [("new-order", fault) for fault in FAULTS]
    + [(step, fault) for step in STEPS for fault in ("500", "HTML", "429")],
)
def test_a_fault_is_one_line_and_a_later_try(tmp_path: Path, kind: str, fault: str) -> None:
    answer, said = FAULTS[fault]
    with Stage(tmp_path, bad_nonces=0) as stage:
        stage.authority.faults.append(Fault(kind, answer, times=1000))
        with stage.gateway({"alpha": [ALPHA]}) as gateway:
            gateway.wait(lambda: gateway.record(ALPHA).get("last_fault"), "the record has the fault")
            record = gateway.record(ALPHA)
            assert said in record["last_fault"], record
            assert record["advice"], record
            gateway.wait(
                lambda: "no certificates are ordered for " in gateway.log() or ALPHA in gateway.log(),
                "the log has it",
            )
            assert_unharmed(gateway)
            before = gateway.log()
        assert before.count(ALPHA) <= 3, before
        # It is good again. Whoever waits is let go now.
        stage.authority.faults.clear()
        gateway.forget_waits()
        with stage.gateway({"alpha": [ALPHA]}) as gateway:
            gateway.wait_until_served(ALPHA)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("-5", None),
        ("soon", None),
        ("1e9", None),
        ("120", 120.0),
        ("315360000", 86400.0),
        ("9" * 400, 86400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_how_long_it_may_ask_for_patience(said: str, seconds: float | None) -> None:
    response = requests.Response()
    response.headers["Retry-After"] = said
    assert asked_patience(response) == seconds
