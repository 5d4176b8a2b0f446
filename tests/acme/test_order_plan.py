"""Which name is next, as a play: names come, time passes, orders succeed and fail."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from koder_gateway.acme.authority import Problem, challenge_fault
from koder_gateway.acme.faults import Fault, refused, unreachable
from koder_gateway.acme.layout import NameRecord
from koder_gateway.acme.order_plan import MAX_IN_FLIGHT, OrderPlan, Pace

HOUR = 3600.0
LIFE = 90 * 86400.0
REJECTED = refused("rejectedIdentifier", "no", status=403, name="a.example")
INVALID = challenge_fault(Problem("connection", "refused"), "a.example", "")
AWAY = unreachable("it cannot be reached")


def half() -> float:
    return 0.5


def plan_of(names: int, rate: int = 1000, now: float = 0.0, pace: Pace | None = None) -> OrderPlan:
    records = [NameRecord(name=f"n{number}.example", first_seen=now + number * 1e-3) for number in range(names)]
    return OrderPlan(rate, half, records, pace, now)


def issue(plan: OrderPlan, name: str, now: float, life: float = LIFE) -> None:
    record = plan.get(name)
    assert record is not None
    record.not_before, record.not_after, record.next_renewal = now, now + life, now + life * 2 / 3
    plan.issued(name, now)


def begun(plan: OrderPlan, now: float) -> list[str]:
    found = []
    while (record := plan.begin(now)) is not None:
        found.append(record.name)
    return found


def test_the_newest_goes_first_and_the_oldest_has_its_turn() -> None:
    plan = plan_of(100, now=1.0)
    order = []
    for turn in range(40):
        record = plan.begin(2.0 + turn)
        assert record is not None
        order.append(int(record.name[1:].partition(".")[0]))
        issue(plan, record.name, 2.0 + turn)
    assert order[:3] == [99, 98, 97]
    assert [number for number in order if number < 50] == list(range(10))


def test_no_more_are_in_flight_than_the_bound() -> None:
    plan = plan_of(10)
    assert len(begun(plan, 1.0)) == MAX_IN_FLIGHT
    assert begun(plan, 2.0) == []


def test_an_order_counts_before_it_is_sent() -> None:
    plan = plan_of(3, rate=2, now=10.0)
    first, second = begun(plan, 10.0)
    assert plan.may_order(first, 10.0)
    assert plan.may_order(second, 11.0)
    issue(plan, first, 12.0)
    issue(plan, second, 12.0)
    assert begun(plan, 12.0) == []
    assert plan.next_look(12.0) == 10.0 + HOUR
    again = OrderPlan(2, half, [NameRecord(name="a.example", first_seen=0.0)], plan.pace, 20.0)
    assert begun(again, 20.0) == []
    assert begun(again, 10.0 + HOUR) == ["a.example"]


def test_a_name_that_is_held_is_looked_at_ever_less_often() -> None:
    plan = plan_of(1)
    waits, now = [], 0.0
    for _ in range(9):
        now = plan.next_look(now)
        (name,) = begun(plan, now)
        plan.held(name, "leads elsewhere", "", now)
        waits.append(plan.next_look(now) - now)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_failed_challenge_is_tried_soon_but_never_six_times_in_an_hour(part: float) -> None:
    record = NameRecord(name="a.example", first_seen=0.0)
    plan = OrderPlan(1000, lambda: part, [record])
    times = [0.0]
    while len(times) < 12:
        assert begun(plan, times[-1]) == ["a.example"]
        plan.failed("a.example", INVALID, times[-1])
        times.append(plan.next_look(times[-1]))
    assert times[1] < 60
    assert all(later - earlier > HOUR for earlier, later in zip(times, times[5:], strict=False))


def test_back_off_survives_a_restart() -> None:
    plan = plan_of(1, now=100.0)
    (name,) = begun(plan, 100.0)
    assert plan.may_order(name, 100.0)
    plan.failed(name, REJECTED, 101.0)
    record = plan.get(name)
    kept = msgspec.json.decode(msgspec.json.encode(record), type=NameRecord)
    again = OrderPlan(50, half, [kept], plan.pace, 102.0)
    assert again.next_look(102.0) == 701.0
    assert begun(again, 700.0) == []
    assert begun(again, 701.0) == [name]


def test_what_was_under_way_is_taken_up_at_once() -> None:
    record = NameRecord(name="a.example", first_seen=0.0, state="ordering", order_url="https://ca/order/1")
    plan = OrderPlan(50, half, [record], None, 50.0)
    taken = plan.begin(50.0)
    assert taken is not None
    assert taken.order_url == "https://ca/order/1"


def test_the_authority_is_left_alone_ever_longer_and_then_asked_by_one() -> None:
    plan = plan_of(20)
    now, pauses = 0.0, []
    for name in begun(plan, now):
        plan.failed(name, AWAY, now)
    for _ in range(10):
        pauses.append(plan.pace.paused_until - now)
        now = plan.pace.paused_until
        assert begun(plan, now - 0.001) == []
        (name,) = begun(plan, now)
        plan.failed(name, AWAY, now)
    assert pauses[:3] == [30.0, 60.0, 120.0]
    assert pauses[-1] == HOUR
    now = plan.pace.paused_until
    (name,) = begun(plan, now)
    issue(plan, name, now)
    assert len(begun(plan, now)) == MAX_IN_FLIGHT


def test_what_the_authority_asks_for_is_given() -> None:
    plan = plan_of(3)
    (name, *_) = begun(plan, 0.0)
    plan.failed(name, refused("rateLimited", "too many new orders", status=429, name=name, after=7200.0), 0.0)
    assert begun(plan, 7199.0) == []
    kept = msgspec.json.decode(msgspec.json.encode(plan.pace), type=Pace)
    assert begun(OrderPlan(50, half, [NameRecord(name="b.example", first_seen=0.0)], kept, 1.0), 7199.0) == []


def test_an_order_that_was_under_way_before_ends_no_pause() -> None:
    plan = plan_of(3)
    first, second, _ = begun(plan, 0.0)
    plan.failed(first, refused("rateLimited", "too many new orders", status=429, name=first, after=7200.0), 0.0)
    issue(plan, second, 1.0)
    assert begun(plan, 7199.0) == []


def test_a_limit_on_one_domain_leaves_the_others_alone() -> None:
    plan = plan_of(3)
    (name, *_) = begun(plan, 0.0)
    words = f"too many certificates already issued for {name}"
    plan.failed(name, refused("rateLimited", words, status=429, name=name, after=86400.0), 0.0)
    assert plan.pace.paused_until == 0.0
    record = plan.get(name)
    assert record is not None
    assert record.next_try == 86400.0


def test_a_name_at_which_the_authority_fails_does_not_hold_up_the_others() -> None:
    plan = plan_of(5)
    bad, now, done = "n4.example", 0.0, set()
    for _ in range(200):
        now = max(now, plan.next_look(now))
        for name in begun(plan, now):
            if name == bad:
                plan.failed(name, AWAY, now)
            else:
                issue(plan, name, now)
                done.add(name)
        if len(done) == 4:
            break
    assert len(done) == 4
    assert now < 600


def test_a_failed_renewal_is_tried_again_well_before_the_end() -> None:
    plan = plan_of(1)
    (name,) = begun(plan, 0.0)
    issue(plan, name, 0.0, 6 * 86400.0)
    now, tries = plan.next_look(0.0), 0
    assert now == 4 * 86400.0
    while now < 6 * 86400.0 - 3600:
        assert begun(plan, now) == [name]
        plan.failed(name, REJECTED, now)
        now, tries = plan.next_look(now), tries + 1
    assert tries > 10


def test_a_clock_that_was_set_back_stops_nothing_for_long() -> None:
    pace = Pace(times=[5000.0] * 3, paused_until=10e9)
    record = NameRecord(name="a.example", first_seen=0.0, next_try=10e9)
    plan = OrderPlan(3, half, [record], pace, 0.0)
    assert plan.next_look(0.0) <= 86400.0


def test_a_removed_name_is_not_begun() -> None:
    plan = plan_of(2)
    plan.remove("n1.example")
    assert begun(plan, 1.0) == ["n0.example"]
    plan.remove("n0.example")
    assert not plan.may_order("n0.example", 1.0)
    plan.failed("n0.example", REJECTED, 1.0)
    assert plan.in_flight == frozenset()


def test_a_tenant_with_thousands_of_names_does_not_stop_the_others() -> None:
    plan = OrderPlan(100_000, half, owner=lambda name: name.partition(".")[2])
    for number in range(3000):
        plan.add(NameRecord(name=f"n{number}.greedy", first_seen=100.0 + number), 1.0)
    plan.add(NameRecord(name="before.patient", first_seen=1.0), 1.0)
    looked: list[str] = []
    for turn in range(200):
        now = 2.0 + turn
        record = plan.begin(now)
        assert record is not None
        looked.append(record.name)
        plan.held(record.name, "it leads elsewhere", "", now)
        if turn == 100:
            plan.add(NameRecord(name="later.another", first_seen=50.0), now)
    assert "before.patient" in looked[:2]
    assert looked.index("later.another") <= 103
    # As often as a name that is alone: at once, after one minute, and after two more.
    assert looked.count("before.patient") == 3


def test_names_of_one_tenant_are_begun_newest_first() -> None:
    plan = OrderPlan(100, half, owner=lambda name: "one")
    for number in range(12):
        plan.add(NameRecord(name=f"n{number}.example", first_seen=float(number + 1)), 20.0)
    assert begun(plan, 20.0) == [f"n{number}.example" for number in (11, 10, 9, 8)]


class Orders(RuleBasedStateMachine):
    """Anything may happen, in any order; the process may end at any time."""

    RATE = 5

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.random = random.Random(7)
        self.plan = OrderPlan(self.RATE, self.random.random, (), None, self.now)
        self.pace = b""
        self.sent: list[float] = []
        self.flying: list[str] = []
        self.number = 0

    @rule(count=st.integers(1, 4))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.plan.add(NameRecord(name=f"n{self.number}.example", first_seen=self.now), self.now)

    @rule(seconds=st.sampled_from([0.5, 10.0, 61.0, 700.0, 3601.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        record = self.plan.begin(self.now)
        if record is not None:
            assert record.name not in self.flying
            self.flying.append(record.name)

    @precondition(lambda self: self.flying)
    @rule(index=st.integers(0, 3))
    def order(self, index: int) -> None:
        if self.plan.may_order(self.flying[index % len(self.flying)], self.now):
            self.pace = msgspec.json.encode(self.plan.pace)
            self.sent.append(self.now)

    @precondition(lambda self: self.flying)
    @rule(how=st.sampled_from(["issued", "held", "rejected", "away", "postponed"]))
    def end(self, how: str) -> None:
        name = self.flying.pop(0)
        if how == "issued":
            if self.plan.get(name) is not None:
                issue(self.plan, name, self.now, 86400.0)
        elif how == "held":
            self.plan.held(name, "elsewhere", "", self.now)
        elif how == "postponed":
            self.plan.postponed(name, self.now)
        else:
            self.plan.failed(name, REJECTED if how == "rejected" else AWAY, self.now)

    @rule()
    def restart(self) -> None:
        """A sudden end: of the pace there is what was kept before the last order."""
        kept = msgspec.json.decode(self.pace, type=Pace) if self.pace else Pace()
        records = [msgspec.json.decode(msgspec.json.encode(each), type=NameRecord) for each in self.plan.records]
        self.plan = OrderPlan(self.RATE, self.random.random, records, kept, self.now)
        self.flying = []

    @invariant()
    def never_more_than_the_rate_in_any_hour(self) -> None:
        for index, time in enumerate(self.sent):
            assert sum(1 for other in self.sent[index:] if other < time + HOUR) <= self.RATE

    @invariant()
    def few_are_in_flight_and_none_twice(self) -> None:
        assert len(self.flying) == len(set(self.flying)) <= MAX_IN_FLIGHT
        assert self.plan.in_flight == frozenset(self.flying)


TestOrders = Orders.TestCase
TestOrders.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_however_many_come_no_name_waits_for_ever(seed: int, coming: int) -> None:
    """More names come than there is time for, and some of them never lead here; certificates are to be renewed."""
    chance = random.Random(seed)
    plan = OrderPlan(10_000, chance.random, (), None, 0.0)
    now = 0.0
    for number in range(10):
        plan.add(NameRecord(name=f"first{number}.example", first_seen=float(number)), now)
    seen: set[str] = set()
    for step in range(400):
        now += 1.0
        for each in range(coming):
            plan.add(NameRecord(name=f"n{step}-{each}.example", first_seen=now), now)
        for name in begun(plan, now)[:1]:
            seen.add(name)
        for name in plan.in_flight:
            if chance.random() < 0.3:
                plan.held(name, "elsewhere", "", now)
            else:
                issue(plan, name, now, 120.0)
    assert {f"first{number}.example" for number in range(10)} <= seen | {
        record.name for record in plan.records if record.last_try
    }


@pytest.mark.parametrize("fault", [REJECTED, AWAY, Fault("broken", "local", "no space", "make room")])
def test_a_fault_stays_to_be_seen(fault: Fault) -> None:
    plan = plan_of(1)
    (name,) = begun(plan, 0.0)
    plan.failed(name, fault, 0.0)
    record = plan.get(name)
    assert record is not None
    assert (record.state, record.last_fault, record.advice) == ("failed", fault.words, fault.advice)
