"""What the policies remember so as not to work it out again: always right, and never more than so much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import RATE_LIMITED
from koder_gateway.policy import clients, decision, tenants
from koder_gateway.policy.decision import limit_refusal
from koder_gateway.policy.tenants import Registry, Tenant


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=20))
def test_each_limit_has_a_refusal_of_its_own(names: list[str]) -> None:
    for name in names * 2:
        refusal = limit_refusal(name)
        assert refusal == RATE_LIMITED.because(f'The limit "{name}" is used up; Retry-After says when to try again.')
        assert limit_refusal(name) is refusal, "made once"
        crowded = limit_refusal(name, crowded=True)
        assert crowded == RATE_LIMITED.because(
            f'Too many requests under the limit "{name}" are in flight; try again soon.'
        )


def test_the_refusals_of_limits_long_gone_are_forgotten() -> None:
    """Each reload may bring other names."""
    for number in range(2000):
        assert f'"limit-{number}"' in limit_refusal(f"limit-{number}").detail
    for number in (0, 1999):
        assert f'"limit-{number}"' in limit_refusal(f"limit-{number}").detail
    held = limit_refusal.cache_info()
    assert held.maxsize is not None
    assert held.currsize <= held.maxsize < 2000


@given(st.from_regex(rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_an_open_registry_remembers_a_tenant_as_it_would_make_it(slug: bytes) -> None:
    registry = Registry(None)
    tenant = registry.find(slug)
    assert tenant == Tenant(slug.decode())
    assert registry.find(slug) is tenant
    assert Registry(None).find(slug) is tenant, "of one memory for all"


@given(st.binary(max_size=70))
def test_what_is_no_slug_is_not_remembered(name: bytes) -> None:
    before = tenants._unregistered.cache_info().currsize
    found = Registry(None).find(name)
    if not tenants.is_slug(name):
        assert found is None
        assert tenants._unregistered.cache_info().currsize == before


def test_a_registry_that_is_not_open_knows_nobody_that_was_remembered() -> None:
    assert Registry(None).find(b"somebody") is not None
    assert Registry(()).find(b"somebody") is None
    suspended = Tenant("somebody", status="suspended")
    assert Registry((suspended,)).find(b"somebody") == suspended


def test_every_memory_is_bounded() -> None:
    for function in (decision.limit_refusal, tenants._unregistered, clients._node_address):
        assert function.cache_info().maxsize, function
