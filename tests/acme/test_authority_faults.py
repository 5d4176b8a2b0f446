"""Authorities that fail in every way that they can: names wait, requests and certificates know nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import requests

from koder_gateway.acme.authority import asked_patience
from tests.kit.acme_gateways import AcmeGateway, Stage, thorough
from tests.kit.faulty_authority import Fault, page, problem

STEPS = ["directory", "account", "authorization", "challenge", "finalize", "certificate"]
HTML = page("200 OK", b"<html><title>Maintenance</title>\x1b[31m" + b"x" * 10_000)
LIMITED = problem(
    "429 Too Many Requests",
    "rateLimited",
    "too many new orders recently",
    "Retry-After: 3600",
    'Link: <https://x/>;rel="help"',
)
NOT_ACME = "not as an ACME authority does"
# How an authority fails, and what of it the log must have: nothing the authority says may be left as it is there.
FAULTS = {
    "500": (problem("500 Internal Server Error", "serverInternal", "the database is away"), "the database is away"),
    "503": (page("503 Service Unavailable", b"down", "text/plain", "Retry-After: 120"), "503"),
    "HTML": (HTML, ""),
    "no JSON": (page("200 OK", b'{"newOrder": ', "application/json"), NOT_ACME),
    "another JSON": (page("200 OK", b'[["newOrder"], 7, null]', "application/json"), NOT_ACME),
    "no HTTP": (b"\x16\x03\x01 nonsense\r\n\r\n", "its answer is no HTTP"),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "its answer is cut off"),
    "429": (LIMITED, "too many new orders recently"),
    "escapes": (problem("403 Forbidden", "unauthorized", "no\r\n2026 [acme#error] forged \x1b[31m"), "forged"),
}
# What the short form of these tests has.
SHORT = {("new-order", "500")}
CASES = [("new-order", fault) for fault in FAULTS]
CASES += [(step, fault) for step in STEPS for fault in ("500", "HTML", "429")]
_numbers = count(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("faults"), bad_nonces=0) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(stage: Stage) -> Iterator[AcmeGateway]:
    """One for all: each test has an authority (by its URL), an account and a name of its own there."""
    with stage.gateway({"alpha": []}) as made:
        yield made


def assert_unharmed(gateway: AcmeGateway, log: str) -> None:
    """It serves, and its log is in lines of its own."""
    assert gateway.ask_admin("/readyz")[0] == 200
    assert "\x1b" not in log
    assert "Traceback" not in log, log
    assert not [line for line in log.splitlines() if line.startswith("2026 [acme#error] forged")]


@pytest.mark.parametrize(
    ("kind", "fault"),
    [pytest.param(*case, marks=() if case in SHORT else thorough, id="-".join(case)) for case in CASES],
)
def test_a_fault_is_one_line_and_a_later_try(stage: Stage, gateway: AcmeGateway, kind: str, fault: str) -> None:
    answer, said = FAULTS[fault]
    number = next(_numbers)
    name, directory = f"n{number}.alpha.example", f"{stage.authority.directory}/{number}"
    stage.authority.forget()
    stage.authority.faults.append(Fault(kind, answer, times=1000))
    earlier = len(gateway.log())
    gateway.change(directory=directory, names=[name])
    gateway.wait(lambda: gateway.record(name).get("last_fault"), "the record has the fault")
    record = gateway.record(name)
    assert said in record["last_fault"], record
    assert record["advice"], record
    assert "report this" not in record["advice"], record

    def told() -> list[str]:
        lines = gateway.log()[earlier:].splitlines()
        return [line for line in lines if "acme: no certificates are ordered for " in line or name in line]

    gateway.wait(told, "the log has it")
    log = gateway.log()[earlier:]
    assert_unharmed(gateway, log)
    (line,) = told()
    assert record["last_fault"] in line
    assert record["advice"] in line
    # The operator has chosen another authority, so that nobody waits.
    stage.authority.faults.clear()
    gateway.change(directory=f"{directory}/other", names=[name])
    gateway.wait_until_served(name)


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
