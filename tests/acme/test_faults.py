"""What an authority says, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.acme.authority import Problem, challenge_fault
from koder_gateway.acme.faults import LONGEST_WORDS, plain, refused, told_after, unreachable
from koder_gateway.acme.messages import RESULTS

ERROR = "urn:ietf:params:acme:error:"


@pytest.mark.parametrize(
    ("code", "status", "result", "scope", "advice"),
    [
        ("caa", 403, "rejected", "name", "CAA"),
        ("rejectedIdentifier", 400, "rejected", "name", "remove the domain from its tenant"),
        ("rateLimited", 429, "limited", "authority", "wait"),
        ("externalAccountRequired", 403, "rejected", "account", "acme.eab"),
        ("invalidContact", 400, "rejected", "account", "acme.contact"),
        ("invalidProfile", 400, "rejected", "account", "acme.profile"),
        ("serverInternal", 500, "failed", "authority", "wait"),
        ("about:blank", 503, "failed", "authority", "wait"),
        ("badNonce", 400, "failed", "authority", "wait"),
        ("somethingNew", 400, "rejected", "name", "documentation"),
        ("about:blank", 429, "limited", "authority", "wait"),
    ],
)
def test_whose_fault_it_is(code: str, status: int, result: str, scope: str, advice: str) -> None:
    fault = refused(ERROR + code if ":" not in code else code, "its own words", status=status, name="a.example")
    assert (fault.result, fault.scope) == (result, scope)
    assert fault.words == ("its own words" if ":" in code else f"its own words ({code})")
    assert advice in fault.advice


def test_new_terms_lead_to_their_page() -> None:
    link = "https://acme.example/terms"
    fault = refused(ERROR + "userActionRequired", "terms have changed", status=403, link=link)
    assert fault.text == f"terms have changed (userActionRequired); read and agree to the new terms at {link}"


def test_a_limit_on_a_domain_is_about_that_one() -> None:
    words = 'too many certificates (50) already issued for "example.com" in the last 168h'
    assert refused("rateLimited", words, status=429, name="login.example.com").scope == "name"
    assert refused("rateLimited", words, status=429, name="login.example.org").scope == "authority"


@pytest.mark.parametrize(
    ("words", "scope"),
    [
        # As Let's Encrypt words them (https://letsencrypt.org/docs/rate-limits/).
        ("too many new orders (300) from this account in the last 3h0m0s, retry after X: see Y", "authority"),
        ("too many new registrations (10) from this IP address in the last 3h0m0s, retry after X", "authority"),
        ("too many currently pending authorizations: see Y", "authority"),
        ("too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s", "name"),
        ("too many certificates already issued for exact set of domains: login.example.com", "name"),
        ('too many failed authorizations (5) for "login.example.com" in the last 1h0m0s, retry after X', "name"),
        ("Service busy; retry later.", "authority"),
    ],
)
def test_who_waits_for_a_limit(words: str, scope: str) -> None:
    assert refused("rateLimited", words, status=429, name="login.example.com").scope == scope
    # There is no name yet when an account is made.
    assert refused("rateLimited", words, status=429).scope == "authority"


def test_until_when_words_ask_to_wait() -> None:
    now = 1738407921.0
    assert told_after("too many new orders, retry after 2025-02-01 11:05:31 UTC: see Y", now) == 10.0
    assert told_after("Retry after 2025-02-01T11:05:31Z", now) == 10.0
    assert told_after("retry after 2020-02-01 11:05:31 UTC", now) == 0.0
    for words in ("retry after 2025-02-31 11:05:31 UTC", "retry after a while", "retry later", ""):
        assert told_after(words, now) is None


def test_what_is_said_of_a_challenge_is_about_its_name() -> None:
    """Even where the authority says that it is its own fault."""
    problem = Problem(ERROR + "serverInternal", "could not look")
    assert challenge_fault(problem, "a.example", "invalid").scope == "name"
    parts = Problem(ERROR + "compound", "two", [Problem("", "first"), Problem("", "second")])
    assert challenge_fault(parts, "a.example", "invalid").words == "two; first; second (compound)"
    assert challenge_fault(None, "a.example", "the order is invalid").words == "the order is invalid"


@given(st.text(), st.text(), st.integers(100, 599), st.sampled_from(["", "a.example"]))
def test_no_words_break_a_line(code: str, words: str, status: int, name: str) -> None:
    fault = refused(code, words, status=status, name=name)
    assert fault.text.isprintable()
    assert len(fault.words) <= LONGEST_WORDS
    assert fault.result in RESULTS
    assert fault.advice


def test_words_are_cut() -> None:
    assert plain("a\x1b[31m\nb  c") == "a [31m b c"
    assert len(plain("x" * 10_000)) == LONGEST_WORDS
    assert unreachable("away", status=502).advice.startswith("wait")
