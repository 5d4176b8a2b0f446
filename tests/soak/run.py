"""One soak: the load, the faults, and what must hold at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.soak.faults import FAULTS, Fault, calm
from tests.soak.leftovers import Held, grown, held, resident, served_by, unsettled
from tests.soak.load import KINDS, Load
from tests.soak.patience import until
from tests.soak.stage import Stage

# Memory is compared with that after the first minute, and may have grown by a tenth.
_FIRST = 60.0
_GROWTH = 1.1
# Shorter soaks have no first minute, and what they allocate is mostly the interpreter's.
_JUDGED = 180.0


@dataclass(frozen=True)
class Plan:
    """`seconds` 0: every fault once. `calm` is how many right answers each kind of client has between two faults."""

    workers: int
    connections: int = 2000
    seconds: float = 0.0
    think: float = 1.0
    calm: int = 50
    seed: int = 1
    faults: tuple[Fault, ...] = FAULTS


@dataclass
class Result:
    """What a soak has found. `broken` are the checks that do not hold, in words."""

    plan: Plan
    stage: Stage
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """MiB that the oldest process has for itself, by when."""
    broken: list[str] = field(default_factory=list)

    def check(self, holds: object, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.broken.append(what)


def soak(stage: Stage, plan: Plan, say: Callable[[str], object] = lambda line: None) -> Result:
    """Run it; the gateway still serves afterwards."""
    result = Result(plan, stage)
    began = time.monotonic()
    _warm_up(stage, plan)
    before = _held(stage)
    elder = served_by(stage.gateway)[0]
    with Load(stage.doors(plan.think), plan.connections, plan.seed, min(plan.seconds / 5, 30.0)):
        try:
            _disturb(stage, plan, result, elder, say)
        except AssertionError as error:
            result.broken.append(f"while it was disturbed: {error}")
        result.memory["at the end of the load"] = _memory(elder)
    say("the load has ended")
    _look_back(stage, result, before, elder)
    result.seconds = time.monotonic() - began
    return result


def _warm_up(stage: Stage, plan: Plan) -> None:
    """Some of everything, so that what is made once is there."""
    with Load(stage.doors(0.2), 100, plan.seed + 1):
        calm(stage, 2)
    until(lambda: not unsettled(stage.gateway), "nothing is held before the load")


def _disturb(stage: Stage, plan: Plan, result: Result, elder: int, say: Callable[[str], object]) -> None:
    began = time.monotonic()
    calm(stage, plan.calm)
    rounds = 0
    while not stage.ledger.failed and (rounds == 0 or time.monotonic() - began < plan.seconds):
        for fault in plan.faults:
            if stage.ledger.failed or (rounds and time.monotonic() - began > plan.seconds):
                break
            name = fault.__name__.replace("_", " ")
            say(f"{time.monotonic() - began:5.0f} s: {name}; {stage.ledger.right.total()} right answers so far")
            fault(stage)
            result.faults[name] = result.faults.get(name, 0) + 1
            calm(stage, plan.calm)
            if "after the first minute" not in result.memory and time.monotonic() - began > _FIRST:
                result.memory["after the first minute"] = _memory(elder)
        rounds += 1


def _memory(pid: int) -> float:
    return resident(pid) / (1 << 20)


def _held(stage: Stage) -> list[Held]:
    return [held(pid, stage.probe) for pid in served_by(stage.gateway)]


def _grown(stage: Stage, before: list[Held]) -> list[dict[str, tuple[int, int]]]:
    """What each process holds more of than before."""
    return [grown(early, late) for early, late in zip(before, _held(stage), strict=True)]


def _look_back(stage: Stage, result: Result, before: list[Held], elder: int) -> None:
    """Everything that must hold once the load has ended."""
    ledger = stage.ledger
    result.check(not ledger.failed, f"{ledger.failed} exchanges failed: " + "; ".join(ledger.failures))
    result.check(ledger.least(KINDS) > 0, f"a kind of client was never served: {dict(ledger.right)}")
    try:
        until(lambda: not unsettled(stage.gateway), "everything is let go of")
    except AssertionError:
        result.broken.append(f"still held: {unsettled(stage.gateway)}")
    result.check(served_by(stage.gateway)[0] == elder, "the oldest process is not the one that it was")
    # The probe may meet the connection that asked for metrics.
    try:
        until(lambda: not any(_grown(stage, before)), "no process holds more")
    except AssertionError:
        more = _grown(stage, before)
        result.broken.append(f"processes hold more than before the load (name, before, after): {more}")
    for name, service in stage.services.items():
        seen = service.faults.read_text()
        result.check(not seen, f"service {name} got what is no proper request: {seen[:1000]}")
    log = stage.gateway.log()
    for word in ("Traceback", "#critical", "Unhandled"):
        result.check(word not in log, f"the log has {word}: {log[max(0, log.find(word) - 500) :][:2000]}")
    _judge_memory(result, elder)


def _judge_memory(result: Result, elder: int) -> None:
    memory = result.memory
    memory["after the load"] = _memory(elder)
    first = memory.get("after the first minute")
    if result.plan.seconds < _JUDGED or first is None:
        return  # too short, or ended early by what is reported already
    for when in ("at the end of the load", "after the load"):
        text = f"memory {when} is {memory[when]:.1f} MiB, {first:.1f} MiB after the first minute"
        result.check(memory[when] <= first * _GROWTH, text)
