"""What the faults of a soak excuse, and what they do not."""

from __future__ import annotations

import time

import pytest

from tests.soak.ledger import Ledger
from tests.soak.wire import Ask

_ASK = Ask("token", "acme", "a")


@pytest.mark.parametrize(
    ("code", "ask", "excused"),
    [
        ("cut", _ASK, True),
        ("overloaded", _ASK, False),
        ("cut", Ask("token", "beta", "a"), False),
        ("cut", Ask("token", "acme", "b"), False),
        ("cut", None, False),
    ],
)
def test_a_fault_excuses_what_it_names(code: str, ask: Ask | None, excused: bool) -> None:
    ledger = Ledger()
    with ledger.window("fault", "cut", service="a", tenant="acme"):
        ledger.missed("HTTP/1.1", code, ask, time.monotonic())
    assert (ledger.failed, ledger.excused.total()) == (int(not excused), int(excused))


def test_a_fault_of_everything_excuses_a_connection_that_never_was() -> None:
    ledger = Ledger()
    with ledger.window("fault", "cut"):
        ledger.missed("HTTP/1.1", "cut", None, time.monotonic())
    assert ledger.excused == {"fault: cut": 1}


def test_an_exchange_is_excused_if_it_overlaps_the_fault() -> None:
    ledger = Ledger()
    before = time.monotonic()
    with ledger.window("fault", "cut"):
        pass
    ledger.missed("HTTP/1.1", "cut", _ASK, before)
    ledger.missed("HTTP/1.1", "cut", _ASK, float("inf"))
    assert (ledger.excused.total(), ledger.failed) == (1, 1)


def test_nothing_excuses_a_wrong_answer() -> None:
    ledger = Ledger()
    with ledger.window("fault", "cut"):
        ledger.wrong("HTTP/1.1", "another one's")
    assert ledger.failed == 1
