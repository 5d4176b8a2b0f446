"""What a mounted resource gets of a request: as a service would."""

from __future__ import annotations

import time
from dataclasses import replace

from koder_gateway.context import verify
from koder_gateway.downstream.forwarded_headers import forwarded_headers, sign_anew
from koder_gateway.exchange.opening import SingleHead, open_exchange
from koder_gateway.policy.certificates import TlsInfo
from koder_gateway.policy.signed_context import ContextSigner, public_jwk
from tests.exchange.test_context import PEER, head, policy
from tests.kit.signing_keys import EDDSA


def test_a_mounted_resource_gets_the_signed_context() -> None:
    made = replace(policy(), signer=ContextSigner(EDDSA, (), time.time))
    asked = head(b"X-Koder-Context: forged", b"X-Mine: 1")
    headers = forwarded_headers(open_exchange(SingleHead(PEER, TlsInfo()), asked, None, None, made, 0.0))
    (token,) = headers.getRawHeaders("X-Koder-Context") or ()
    found = verify(token, {"keys": [public_jwk(EDDSA)]}, host="koder.id.koder.dev", tenant="koder")
    assert (found.ip, headers.getRawHeaders("X-Mine")) == (PEER, ["1"])


def test_its_context_is_signed_anew_when_the_body_comes_late() -> None:
    times = iter((1_800_000_000.0, 1_800_000_029.0, 1_800_000_058.0))
    made = replace(policy(), signer=ContextSigner(EDDSA, (), lambda: next(times)))
    exchange = open_exchange(SingleHead(PEER, TlsInfo()), head(b"X-Mine: 1"), None, None, made, 0.0)
    headers = forwarded_headers(exchange)
    first = headers.getRawHeaders("X-Koder-Context")
    sign_anew(exchange, headers)
    assert headers.getRawHeaders("X-Koder-Context") == first
    sign_anew(exchange, headers)
    (token,) = headers.getRawHeaders("X-Koder-Context") or ()
    found = verify(token, {"keys": [public_jwk(EDDSA)]}, host="koder.id.koder.dev", now=1_800_000_058.0)
    assert found.issued == 1_800_000_058


def test_without_a_key_there_is_nothing_to_sign_anew() -> None:
    exchange = open_exchange(SingleHead(PEER, TlsInfo()), head(), None, None, policy(), 0.0)
    headers = forwarded_headers(exchange)
    sign_anew(exchange, headers)
    assert not headers.hasHeader("X-Koder-Context")
