"""kill -9 in every step of an order: the next process goes on, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.acme_gateways import Stage, thorough

pytestmark = thorough

ALPHA = "login.alpha.example"
STEPS = ["account", "new-order", "authorization", "challenge", "finalize", "order", "certificate"]


@pytest.mark.parametrize("after", [False, True], ids=["unheard", "unanswered"])
@pytest.mark.parametrize("step", STEPS)
def test_the_process_is_killed(tmp_path: Path, step: str, after: bool) -> None:
    with (
        Stage(tmp_path, bad_nonces=0) as stage,
        stage.authority.held(step, after=after) as hold,
        stage.gateway({"alpha": [ALPHA]}) as gateway,
    ):
        hold.come()
        first = gateway.acme_process
        gateway.kill_acme()
        hold.release()
        gateway.wait_until_served(ALPHA)
        assert gateway.acme_process not in (0, first)
        assert len(stage.authority.ordered()) <= 2


@pytest.mark.parametrize("step", ["new-order", "finalize"])
def test_the_gateway_is_killed(tmp_path: Path, step: str) -> None:
    with Stage(tmp_path, bad_nonces=0) as stage, stage.authority.held(step, after=True) as hold:
        gateway = stage.gateway({"alpha": [ALPHA]})
        try:
            hold.come()
            beside = Path(f"/proc/{gateway.acme_process}")
            assert beside.name != "0"
        finally:
            gateway.kill()
        hold.release()
        gateway.wait(lambda: not beside.exists(), "the process beside it ends with it")
        with stage.gateway({"alpha": [ALPHA]}) as again:
            again.wait_until_served(ALPHA)
            assert len(stage.authority.ordered()) <= 2
