"""kill -9 in every step of an order: the next process goes on, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.kit.acme_gateways import AcmeGateway, Stage, thorough

STEPS = ["account", "new-order", "authorization", "challenge", "finalize", "order", "certificate"]
# The short form of these tests has the one after which the authority knows of an order that nobody else does.
SHORT = {("new-order", True)}
_numbers = count(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("killed"), bad_nonces=0) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(stage: Stage) -> Iterator[AcmeGateway]:
    """One for all: each test has an authority (by its URL), an account and a name of its own there."""
    with stage.gateway({"alpha": []}) as made:
        yield made


@pytest.mark.parametrize(
    ("step", "after"),
    [
        pytest.param(
            step,
            after,
            marks=() if (step, after) in SHORT else thorough,
            id=f"{step}-{'unanswered' if after else 'unheard'}",
        )
        for step in STEPS
        for after in (False, True)
    ],
)
def test_the_process_is_killed(stage: Stage, gateway: AcmeGateway, step: str, after: bool) -> None:
    number = next(_numbers)
    name = f"n{number}.alpha.example"
    stage.authority.forget()
    with stage.authority.held(step, after=after) as hold:
        gateway.change(directory=f"{stage.authority.directory}/{number}", names=[name])
        hold.come()
        first = gateway.acme_process
        gateway.kill_acme()
        hold.release()
        gateway.wait_until_served(name)
    assert gateway.acme_process not in (0, first)
    assert set(stage.authority.ordered()) == {name}
    assert len(stage.authority.ordered()) <= 2
    # Nothing is left behind.
    gateway.wait(gateway.is_in(name, "issued"), "its record says so")
    assert not [*gateway.state.glob(f"challenges/alpn/{name}*")]
    assert not [*gateway.state.glob(f"orders/{name}*")]


@thorough
@pytest.mark.parametrize("step", ["new-order", "finalize"])
def test_the_gateway_is_killed(tmp_path: Path, step: str) -> None:
    name = "login.beta.example"
    with Stage(tmp_path, bad_nonces=0) as stage, stage.authority.held(step, after=True) as hold:
        gateway = stage.gateway({"beta": [name]})
        try:
            hold.come()
            beside = Path(f"/proc/{gateway.acme_process}")
            assert beside.name != "0"
        finally:
            gateway.kill()
        hold.release()
        gateway.wait(lambda: not beside.exists(), "the process beside it ends with it")
        with stage.gateway({"beta": [name]}) as again:
            again.wait_until_served(name)
            assert len(stage.authority.ordered()) <= 2
