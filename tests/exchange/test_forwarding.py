"""Every field that a service gets from the gateway. What a proxy says of a request's way is `test_context`'s."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.exchange.forwarding import bodiless, context_fields, header_fields, service_fields


def test_one_requests_fields_come_before_its_contexts() -> None:
    context = b"X-Tenant-ID: koder\r\n"
    assert service_fields(b"r1", b"", context) == b"X-Request-ID: r1\r\n" + context
    upgrade = service_fields(b"r1", b"", context, b"websocket")
    assert upgrade == b"X-Request-ID: r1\r\n" + context + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize(("certificate", "line"), [(b"", b""), (b"\x30\x00", b"Client-Cert: :MAA=:\r\n")])
def test_a_certificate_is_a_byte_sequence(certificate: bytes, line: bytes) -> None:
    fields = context_fields((b"X-Tenant-ID", b"koder"), b"Via: 1.1 koder-gateway\r\n", certificate)
    assert fields == b"X-Tenant-ID: koder\r\nVia: 1.1 koder-gateway\r\n" + line


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_a_body_that_is_empty_is_framed_by_nothing(method: bytes) -> None:
    start = method + b" / HTTP/1.1\r\nHost: a\r\n"
    asked = start + b"transfer-encoding: chunked\r\nTrailer: X-Sum\r\nVia: 1.1 koder-gateway\r\n\r\n"
    length = b"Content-Length: 0\r\n" if method.startswith(b"P") else b""
    assert bodiless(asked, method) == start + b"Via: 1.1 koder-gateway\r\n" + length + b"\r\n"


@given(
    st.lists(
        st.tuples(st.from_regex(rb"[A-Za-z-]{1,8}", fullmatch=True), st.from_regex(rb"[!-~]{0,8}", fullmatch=True))
    )
)
def test_fields_are_read_as_they_were_written(fields: list[tuple[bytes, bytes]]) -> None:
    lines = [b"%b: %b\r\n" % field for field in fields]
    assert list(header_fields(lines)) == fields
    assert list(header_fields([b"".join(lines)])) == fields
