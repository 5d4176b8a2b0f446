"""Tenants' own figures for limits, kept once however many tenants have the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy import tenants
from koder_gateway.policy.limit_rules import RateOverride
from koder_gateway.policy.shared_figures import SharedFigures
from koder_gateway.policy.tenants import Tenant, packed, unpacked

FIGURES = [{"login": RateOverride(number, 60, number)} for number in range(1, 6)]
HOSTS = st.sampled_from(["a.example", "www.b.example:8443", "*.c.example"])


def test_equal_figures_have_one_number_and_are_one_object() -> None:
    shared = SharedFigures()
    both = {"login": RateOverride(1, 60), "other": RateOverride(in_flight=3)}
    assert shared.number(both) == shared.number(dict(reversed(both.items()))) == 1
    assert shared.number(FIGURES[0]) == 2
    assert shared[1] == both
    assert shared[2] == FIGURES[0]


def test_beyond_the_bound_there_are_no_numbers_but_for_what_is_known() -> None:
    shared = SharedFigures(most=2)
    assert [shared.number(each) for each in FIGURES] == [1, 2, None, None, None]
    assert [shared.number(dict(each)) for each in FIGURES[:3]] == [1, 2, None]


def test_many_tenants_with_the_same_figures_keep_one_of_them() -> None:
    many = [Tenant(f"t{n}", limits={"login": RateOverride(7, 60, 5)}) for n in range(3)]
    read = [unpacked(tenant.wire, packed(tenant)) for tenant in many]
    assert read == many
    assert len({id(tenant.limits) for tenant in read}) == 1
    assert len(packed(many[0])) < 12


def test_without_a_number_a_tenant_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "_FIGURES", SharedFigures(most=0))
    tenant = Tenant("t", limits=FIGURES[0])
    assert unpacked(b"t", packed(tenant)) == tenant


@given(
    st.lists(st.tuples(st.sampled_from(["https://", "http://", "https://*."]), HOSTS), max_size=4),
    st.dictionaries(st.text(max_size=9), st.builds(RateOverride, *[st.integers(0, 10**7)] * 4), max_size=3),
    st.sampled_from(["active", "suspended"]),
)
def test_whatever_a_tenant_is_it_is_read_as_it_was(
    origins: list[tuple[str, str]], limits: dict[str, RateOverride], status: str
) -> None:
    tenant = Tenant("t", ("d.example",), status, tuple(map("".join, origins)), limits)  # type: ignore[arg-type]
    assert unpacked(b"t", packed(tenant)) == tenant
