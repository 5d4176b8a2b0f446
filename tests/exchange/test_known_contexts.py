"""Contexts that are known from a client's other connections: always what would be made for the head, and bounded."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.exchange.context import RequestContext, request_context
from koder_gateway.exchange.known_contexts import _KEPT, _LONGEST, KnownContexts
from koder_gateway.policy.certificates import CertificateNames, TlsInfo
from koder_gateway.policy.clients import ProxiedAddress
from koder_gateway.policy.decision import Policy
from tests.exchange.test_context import APP, KODER, PEER, head, policy

POLICIES = (policy(), policy(trusted=("10.1.2.3",)))
# What is the same is the same object, as `tls.established` has it.
SECURED = (None, TlsInfo(), TlsInfo(CertificateNames(["login.koder.example"]), b"login.koder.example"))
PEERS = (
    PEER,
    "10.1.2.3",
    ProxiedAddress(PEER, "10.1.2.3", None),
    ProxiedAddress(PEER, "10.1.2.3", False),
    ProxiedAddress("10.1.2.3", "10.1.2.3", None, named=False),
)
LINES = (
    (),
    (b"Origin: " + APP,),
    (b"Origin: " + KODER,),
    (b"X-Tenant-ID: acme",),
    (b"X-Tenant-ID: koder",),
    (b"Forwarded: for=198.51.100.7",),
    (b"X-Forwarded-For: 198.51.100.8", b"X-Forwarded-Proto: https"),
)
HOSTS = (b"koder.id.koder.dev", b"acme.id.koder.dev", b"id.koder.dev", b"login.koder.example", b"closed.id.koder.dev")
ASKED = st.tuples(
    st.sampled_from(POLICIES),
    st.sampled_from(LINES),
    st.sampled_from(HOSTS),
    st.sampled_from((b"GET", b"POST")),
    st.sampled_from(PEERS),
    st.sampled_from(SECURED),
)


def values(context: RequestContext) -> list[object]:
    return [getattr(context, field.name) for field in fields(context)]


@settings(max_examples=60)
@given(st.lists(ASKED, max_size=30))
def test_a_known_context_is_what_would_be_made(
    asked: list[tuple[Policy, tuple[bytes, ...], bytes, bytes, str, TlsInfo | None]],
) -> None:
    contexts = KnownContexts()
    for made, lines, host, method, peer, secured in asked:
        came = head(*lines, host=host, method=method)
        known = contexts.context(made, came, peer, secured)
        assert values(known) == values(request_context(made, came, peer, secured))


def test_a_client_that_comes_again_has_the_same_context() -> None:
    contexts = KnownContexts()
    for secured in SECURED:
        first = contexts.context(POLICIES[0], head(b"Origin: " + APP), PEER, secured)
        assert contexts.context(POLICIES[0], head(b"Origin: " + APP), PEER, secured) is first
    assert len(contexts) == len(SECURED)


def test_what_holds_for_one_request_or_connection_is_not_kept() -> None:
    contexts = KnownContexts()
    contexts.context(POLICIES[0], head(b"Forwarded: for=198.51.100.7"), PEER, None)
    contexts.context(POLICIES[0], head(), PEERS[2], None)
    contexts.context(POLICIES[0], head(), PEER, TlsInfo(client=b"\x30\x82", authorities=b"one"))
    contexts.context(POLICIES[0], head(b"Origin: https://" + b"a" * _LONGEST), PEER, None)
    assert len(contexts) == 0


def test_few_are_kept_and_the_oldest_are_dropped() -> None:
    contexts = KnownContexts()
    kept = [contexts.context(POLICIES[0], head(), f"192.0.{n >> 8}.{n & 255}", None) for n in range(_KEPT + 1)]
    assert len(contexts) == _KEPT
    assert contexts.context(POLICIES[0], head(), "192.0.4.0", None) is kept[-1]
    assert contexts.context(POLICIES[0], head(), "192.0.0.0", None) is not kept[0]
