"""Renewals: by a short life, by the authority's word, and those that fail."""

from __future__ import annotations

import time
from pathlib import Path

from tests.kit.acme_gateways import Stage, thorough
from tests.kit.faulty_authority import Fault, problem

pytestmark = thorough

ALPHA = "login.alpha.example"


def test_at_two_thirds_of_a_short_life(tmp_path: Path) -> None:
    with Stage(tmp_path, validity=15) as stage, stage.gateway({"alpha": [ALPHA]}) as gateway:
        (first,) = gateway.wait_until_served(ALPHA)
        gateway.wait(lambda: gateway.count("renewed") == 1, "it is renewed")
        assert time.time() < first.not_valid_after_utc.timestamp()
        second = gateway.wait(
            lambda: (found := gateway.serves(ALPHA)) and found.serial_number != first.serial_number and found,
            "the new one is shown",
        )
        assert second.public_key() != first.public_key()
        assert gateway.count("issued") == 1


def test_when_the_authority_says_so(tmp_path: Path) -> None:
    asked: list[str] = []

    def renewal(certificate: str) -> tuple[float, float]:
        """The first certificate is to be renewed at once, the others later."""
        if certificate not in asked:
            asked.append(certificate)
        now = time.time()
        return (now - 100, now - 50) if certificate == asked[0] else (now + 1e6, now + 2e6)

    with Stage(tmp_path, renewal=renewal) as stage, stage.gateway({"alpha": [ALPHA]}) as gateway:
        (first,) = gateway.wait_until_served(ALPHA)
        gateway.wait(lambda: gateway.count("renewed") == 1, "it is renewed")
        assert [each.payload.get("replaces") for each in stage.authority.orders] == [None, asked[0]]
        gateway.wait(lambda: len(asked) == 2, "the new one is asked about")
        serial = first.serial_number.to_bytes((first.serial_number.bit_length() + 8) // 8, "big")
        assert len(asked[0].split(".")) == 2
        assert serial
        gateway.wait(lambda: gateway.record(ALPHA)["next_renewal"] > time.time() + 1e5, "its renewal is known")


def test_one_that_fails_keeps_the_old_one_and_says_so(tmp_path: Path) -> None:
    with Stage(tmp_path, validity=24) as stage, stage.gateway({"alpha": [ALPHA]}) as gateway:
        (first,) = gateway.wait_until_served(ALPHA)
        fault = problem("500 Internal Server Error", "serverInternal", "the database is away")
        stage.authority.faults.append(Fault("new-order", fault, times=10_000))
        gateway.wait(lambda: gateway.record(ALPHA).get("last_fault"), "a renewal fails")
        gateway.wait(lambda: gateway.record(ALPHA).get("warned"), "a third of what was left is gone")
        (shown,) = gateway.wait_until_served(ALPHA)
        assert shown == first
        gateway.wait(lambda: "#warn" in gateway.log() and ALPHA in gateway.log(), "the log says so")
