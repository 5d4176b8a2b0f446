"""What a mounted resource gets of a request: as a service would."""

from __future__ import annotations

import time
from dataclasses import replace

from koder_gateway.context import verify
from koder_gateway.downstream.forwarded_headers import forwarded_headers
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
