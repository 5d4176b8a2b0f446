"""How an exchange begins: its id, its context, and the refusal with which it begins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from koder_gateway.errors import BAD_FRAMING, OVERLOADED, Refusal
from koder_gateway.exchange.context import RequestContext, request_context
from koder_gateway.exchange.opening import HeadSource, open_exchange
from koder_gateway.exchange.states import HELD, Exchange
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.decision import Policy
from koder_gateway.wire.request_head import RequestHead
from tests.exchange.test_context import PEER, head, policy


class Line(HeadSource):
    """A connection that keeps its last context, and counts how often it was asked for one."""

    def __init__(self, full: Refusal | None = None) -> None:
        self.peer = PEER
        self.full = full
        self.asked = 0
        self.context: RequestContext | None = None

    def context_for(self, policy: Policy, head: RequestHead) -> RequestContext:
        self.asked += 1
        return request_context(policy, head, self.peer, TlsInfo())

    def keep_context(self, context: RequestContext) -> Refusal | None:
        self.context = context if context.lasting else None
        return self.full

    def open(self, of: RequestHead, made: Policy, refusal: Refusal | None = None) -> Exchange:
        return open_exchange(self, of, refusal, self.context, made, 7.5)


def test_an_exchange_begins_with_what_its_context_says() -> None:
    line, asked = Line(), head()
    exchange = line.open(asked, policy())
    context = line.context
    assert context is not None
    assert exchange.context is context
    assert (exchange.head, exchange.started, exchange.peer, exchange.phase) == (asked, 7.5, PEER.encode(), HELD)
    assert (exchange.refusal, exchange.tenant, exchange.charges) == (None, b"", None)
    assert exchange.fields == b"X-Request-ID: %b\r\n%b" % (exchange.request_id, context.fields)
    assert (exchange.drops_hsts, exchange.readable) == (context.drops_hsts, context.readable)


def test_an_id_of_the_clients_is_kept_and_else_there_is_a_new_one() -> None:
    line, made = Line(), policy()
    assert line.open(head(b"X-Request-ID: mine-1"), made).request_id == b"mine-1"
    ids = {line.open(head(b"X-Request-ID: not mine"), made).request_id for _ in range(3)}
    assert len(ids) == 3
    assert {len(each) for each in ids} == {32}


def test_a_context_that_fits_is_not_made_again() -> None:
    line, made = Line(), policy()
    first = line.open(head(), made)
    assert line.open(head(b"Accept: */*"), made).context is first.context
    assert line.asked == 1
    other = line.open(head(host=b"acme.id.koder.dev"), made)
    assert other.context is line.context is not first.context
    assert line.open(head(host=b"acme.id.koder.dev"), replace(made, max_body=1)).context is not other.context
    assert line.asked == 3


@pytest.mark.parametrize("refusal", [None, BAD_FRAMING])
@pytest.mark.parametrize("full", [None, OVERLOADED])
def test_what_the_head_is_refused_for_comes_before_its_tenants_share(
    refusal: Refusal | None, full: Refusal | None
) -> None:
    line = Line(full)
    assert line.open(head(), policy(), refusal).refusal is (refusal or full)
    assert line.context is not None, "the connection counts as its tenant's, whatever becomes of the request"
    assert line.open(head(), policy()).refusal is full
