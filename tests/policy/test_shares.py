"""Shares: the arithmetic, and the properties of places and of those who wait for one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from koder_gateway.policy.shares import Counts, Owner, Places, Shares

A, B, C = b"a", b"b", b"c"


class Guest:
    """Who asks for a place."""

    def __init__(self, address: bytes, tenant: bytes = b"t") -> None:
        self.owner = Owner(address, tenant)


class House:
    """Places, and what a service does with them: `called` says that the waiting are to be served, `gone` who was."""

    def __init__(self, limit: int = 8, address: int = 2, tenant: int = 4) -> None:
        self.called = 0
        self.gone: list[Guest] = []
        self.places: Places[Guest] = Places(limit, Shares(address, tenant), lambda guest: guest.owner, self._call)

    def _call(self) -> None:
        self.called += 1

    def ask(self, address: bytes, tenant: bytes = b"t") -> Guest:
        """One more guest, who has a place or waits for one."""
        guest = Guest(address, tenant)
        if not self.places.acquire(guest):
            assert self.places.wait(guest) == ""
        return guest

    def serve(self, most: int = 100) -> list[Guest]:
        """Serve the waiting; who has got a place."""
        self.gone = []
        self.places.serve(self.gone.append, most)
        return self.gone


def test_a_share_is_a_part_and_never_nothing() -> None:
    assert Shares.of(1024, 25, 50) == Shares(256, 512)
    assert Shares.of(300, 29, 100) == Shares(87, 300)
    assert Shares.of(2, 1, 25) == Shares(1, 1)


def test_nothing_is_counted_before_it_could_matter() -> None:
    house = House(limit=100, address=10, tenant=50)
    guests = [house.ask(A) for _ in range(10)]
    assert set(house.places.held.values()) == {None}
    waits = house.ask(A)
    assert waits in house.places.queue
    assert set(house.places.held.values()) == {waits.owner}
    house.places.release(waits)
    for guest in guests[:6]:
        house.places.release(guest)
    assert set(house.places.held.values()) == {None}


def test_addresses_have_turns_and_the_first_come_goes_first_within_one() -> None:
    house = House(limit=5, address=3, tenant=5)
    holders = [house.ask(name) for name in (A, A, A, C, C)]
    first, second, third = house.ask(B), house.ask(B), house.ask(B)
    other = house.ask(C)
    mine = house.ask(A)
    assert list(house.places.queue) == [first, second, third, other, mine]
    house.places.release(holders[0])
    house.places.release(holders[3])
    assert house.called == 1
    assert house.serve() == [first, other]
    house.places.release(holders[1])
    house.places.release(holders[2])
    # B has just had its turn.
    assert house.serve() == [mine, second]
    assert list(house.places.queue) == [third]


def test_who_is_over_a_share_is_passed_over() -> None:
    house = House(limit=8, address=2, tenant=4)
    mine = [house.ask(A, b"t"), house.ask(A, b"t")]
    waits = house.ask(A, b"u")
    house.ask(B, b"t"), house.ask(B, b"t")
    over = house.ask(C, b"t")
    house.ask(C, b"u")
    assert list(house.places.queue) == [waits, over]
    house.places.release(mine[0])
    assert house.serve() == [waits, over]


def test_nobody_overtakes_those_whose_place_has_just_become_free() -> None:
    house = House(limit=2, address=2, tenant=2)
    holder, _ = house.ask(A), house.ask(A)
    waits = house.ask(B)
    house.places.release(holder)
    late = house.ask(C)
    assert late in house.places.queue
    assert house.serve() == [waits]


def test_a_proxy_that_stands_for_many_is_bound_by_no_share() -> None:
    house = House(limit=8, address=1, tenant=1)
    for _ in range(8):
        house.ask(b"", b"")
    assert len(house.places.held) == 8
    house.ask(A)
    assert len(house.places.queue) == 1


def test_one_address_may_have_the_whole_queue_until_others_come() -> None:
    house = House(limit=4, address=1, tenant=4)
    house.ask(A)
    waiting = [house.ask(A) for _ in range(4)]
    assert list(house.places.queue) == waiting
    assert house.places.wait(Guest(A)) == "full"
    assert house.places.in_the_way(Guest(A), "full") is None
    for number in range(3):
        assert house.ask(bytes((number + 1,))) in house.places.held
    for place in (3, 2):
        late = Guest(B, b"u")
        assert house.places.wait(late) == "full"
        assert house.places.in_the_way(late, "full") is waiting[place]
        house.places.release(waiting[place])
        assert house.places.wait(late) == ""
    assert house.places.in_the_way(Guest(B, b"u"), "full") is None, "both have as many"


def test_a_tenant_has_a_share_of_those_who_wait_too() -> None:
    """Else the requests of one, of which none may go, would leave no room for anybody who may."""
    house = House(limit=8, address=8, tenant=4)
    for number in range(8):
        house.ask(bytes((number + 1,)), b"busy")
    assert house.places.wait(Guest(A, b"busy")) == "tenant"
    other = house.ask(A, b"other")
    assert other in house.places.held


def test_whoever_has_most_waiting_makes_room_for_who_has_fewer() -> None:
    house = House(limit=6, address=6, tenant=6)
    for _ in range(6):
        house.ask(A)
    waiting = [house.ask(name) for name in (B, B, B, B, C, C)]
    late = Guest(b"d", b"t")
    assert house.places.wait(late) == "full"
    last = house.places.in_the_way(late, "full")
    assert last is waiting[3]
    house.places.release(last)
    assert house.places.wait(late) == ""
    assert house.places.in_the_way(Guest(B, b"t"), "full") is None, "nobody makes room for more of his own"
    assert house.places.in_the_way(Guest(b"e", b"u"), "tenant") is None, "that tenant has nobody here"


def test_many_are_served_in_several_turns() -> None:
    house = House(limit=8, address=8, tenant=8)
    holders = [house.ask(A) for _ in range(8)]
    waiting = [house.ask(bytes((number,))) for number in range(1, 7)]
    for holder in holders:
        house.places.release(holder)
    assert (house.called, house.serve(4)) == (1, waiting[:4])
    assert (house.called, house.serve(4)) == (2, waiting[4:])
    assert house.called == 2


def test_larger_shares_let_those_go_who_wait() -> None:
    house = House(limit=8, address=1, tenant=8)
    house.ask(A)
    waits = house.ask(A)
    house.places.set_shares(Shares(2, 8))
    assert (house.called, house.serve()) == (1, [waits])


def filled() -> tuple[House, list[Guest], list[Guest]]:
    """A tenant's half of 1024 places, as far as two addresses can fill it; who is inside, and who of B's waits."""
    house = House(limit=1024, address=256, tenant=512)
    asked = [house.ask(A) for _ in range(256)] + [house.ask(B) for _ in range(256)]
    inside = [guest for guest in asked if guest in house.places.held]
    waiting = [guest for guest in asked if guest in house.places.queue]
    assert (len(inside), len(waiting)) == (480, 32)
    assert {guest.owner.address for guest in waiting} == {B}
    return house, inside, waiting


def test_two_addresses_leave_places_of_their_tenant_to_others() -> None:
    house, inside, waiting = filled()
    others = [house.ask(b"other %d" % number) for number in range(8) for _ in range(4)]
    assert all(guest in house.places.held for guest in others)
    late = house.ask(b"late")
    assert late in house.places.queue, "now its tenant has its share"
    # Of another tenant there are places for everybody, even where that has none for the address.
    assert house.ask(B, b"u") in house.places.held
    assert house.ask(C, b"u") in house.places.held
    house.places.release(inside[0])
    assert house.serve() == [late]
    house.places.release(inside[-1])
    assert house.serve() == [], "B is still one of many places, and A asks for none"
    assert len(house.places.queue) == len(waiting)


def test_who_waits_for_what_is_kept_for_others_goes_when_others_have_let_go() -> None:
    house, inside, waiting = filled()
    elsewhere = house.ask(B, b"u")
    assert elsewhere in house.places.held, "what is kept of one tenant's says nothing about another's"
    for guest in inside[:10]:
        house.places.release(guest)
    assert house.serve() == waiting[:10]


def test_requests_for_other_tenants_pass_those_that_wait_for_what_is_kept() -> None:
    house, inside, _ = filled()
    # The rest of the house is full.
    rest = [house.ask(b"%d" % number, b"u" if number < 300 else b"v") for number in range(512)]
    last = [house.ask(b"c%d" % number) for number in range(32)]
    passes = house.ask(B, b"u")
    assert passes in house.places.queue
    for guest in (rest[0], last[0]):
        house.places.release(guest)
    assert house.serve() == [passes]
    assert len(inside) == 480


@pytest.mark.parametrize("shares", [Shares(512, 512), Shares(600, 512), Shares(4, 15), Shares(1, 1)])
def test_nothing_is_kept_where_one_address_may_have_all_or_there_is_too_little(shares: Shares) -> None:
    assert shares.kept == 0
    counts = Counts()
    for number in range(shares.tenant):
        assert counts.reached(Owner(b"%d" % (number // shares.address), b"t"), shares) == ""
        counts.add(Owner(b"%d" % (number // shares.address), b"t"))
    assert counts.reached(Owner(b"new", b"t"), shares) == "tenant"


@pytest.mark.parametrize("owner", [Owner(A, b"t"), Owner(b"", b"t"), Owner(A, b""), Owner(b"", b"")])
def test_counts_keep_no_entry_of_nothing(owner: Owner) -> None:
    counts = Counts()
    counts.add(owner)
    counts.add(owner)
    counts.remove(owner)
    counts.remove(owner)
    assert (counts.addresses, counts.tenants) == ({}, {})


class Life(RuleBasedStateMachine):
    """Guests come, wait, leave and are served in any order."""

    ADDRESSES = (A, B, C, b"d", b"")
    TENANTS = (b"t", b"u", b"v")

    def __init__(self) -> None:
        super().__init__()
        self.house = House(limit=6, address=2, tenant=3)
        self.places = self.house.places
        self.inside: list[Guest] = []
        self.waiting: list[Guest] = []
        self.passed: Counter[Guest] = Counter()

    @rule(address=st.sampled_from(ADDRESSES), tenant=st.sampled_from(TENANTS))
    def comes(self, address: bytes, tenant: bytes) -> None:
        guest = Guest(address, tenant)
        if self.places.acquire(guest):
            self.inside.append(guest)
        elif not self.places.wait(guest):
            self.waiting.append(guest)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.inside))
        self.inside.remove(guest)
        self.places.release(guest)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        guest = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(guest)
        self.places.release(guest)

    @rule(most=st.integers(1, 6))
    def served(self, most: int) -> None:
        before = list(self.waiting)
        gone = self.house.serve(most)
        assert len(gone) <= most
        for guest in gone:
            self.waiting.remove(guest)
            self.inside.append(guest)
            # Within an address and tenant nobody is overtaken.
            assert guest is next(each for each in before if each.owner == guest.owner)
            before.remove(guest)
        # Nobody is passed by another address more often than there are places and addresses.
        turns = Counter(guest.owner.address for guest in gone)
        for guest in self.waiting:
            if not self.places.refusal(guest.owner):
                self.passed[guest] += max((n for name, n in turns.items() if name != guest.owner.address), default=0)
        if len(gone) < most:
            assert all(self.places.refusal(guest.owner) for guest in self.waiting), "somebody waits for a free place"

    @invariant()
    def nobody_has_more_than_a_share(self) -> None:
        assert set(self.places.held) == set(self.inside)
        assert set(self.places.queue) == set(self.waiting)
        assert len(self.inside) <= 6
        addresses = Counter(guest.owner.address for guest in self.inside)
        tenants = Counter(guest.owner.tenant for guest in self.inside)
        assert all(count <= 2 for name, count in addresses.items() if name)
        assert all(count <= 3 for count in tenants.values())

    @invariant()
    def nothing_grows(self) -> None:
        assert len(self.waiting) + len(self.inside) <= 2 * 6
        assert sorted(self.places.queue.addresses) == sorted({guest.owner.address for guest in self.waiting})
        counts = self.places._counts
        if counts is not None:
            assert counts.addresses == Counter(g.owner.address for g in self.inside if g.owner.address)
            assert counts.tenants == Counter(guest.owner.tenant for guest in self.inside)
        else:
            assert not self.waiting

    def teardown(self) -> None:
        for guest in (*self.inside, *self.waiting):
            self.places.release(guest)
        assert (len(self.places.held), len(self.places.queue), self.places._counts) == (0, 0, None)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.parametrize("addresses", [2, 7, 40])
def test_no_address_waits_while_others_are_served_twice(addresses: int) -> None:
    """However many requests one address has waiting, each of the others has its turn in one round."""
    house = House(limit=80, address=80, tenant=80)
    holders = [house.ask(A) for _ in range(60)] + [house.ask(B) for _ in range(20)]
    flood = [house.ask(A) for _ in range(20)]
    others = [house.ask(b"other %d" % number) for number in range(addresses)]
    for holder in holders[: addresses + 1]:
        house.places.release(holder)
    assert house.serve() == [flood[0], *others]


def test_a_burst_of_answers_makes_no_room_scarce() -> None:
    """Between the answers and the turn in which the waiting are served, others come."""
    house = House(limit=16, address=4, tenant=16)
    holders = [house.ask(A) for _ in range(4)]
    waiting = [house.ask(A) for _ in range(4)]
    for holder in holders:
        house.places.release(holder)
    late = [house.ask(A) for _ in range(4)]
    assert house.serve() == waiting
    assert list(house.places.queue) == late
