"""The headers of traces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.trace_context import is_traceparent, is_tracestate, traceparent_line

HEX = "0123456789abcdef"


@given(
    st.text(HEX, min_size=32, max_size=32).filter(lambda text: set(text) != {"0"}),
    st.text(HEX, min_size=16, max_size=16).filter(lambda text: set(text) != {"0"}),
    st.integers(0, 255),
)
def test_what_is_written_is_well_formed(trace_id: str, span: str, flags: int) -> None:
    line = traceparent_line(trace_id.encode(), span.encode(), flags)
    assert line.startswith(b"traceparent: ")
    assert line.endswith(b"\r\n")
    assert is_traceparent(line[13:-2])


@pytest.mark.parametrize(
    "value",
    [
        b"a=1",
        b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        b"tenant@system=x, b=y z",
        b"a=1,,\t b=2",
        b"",
        b"0-_*/a=!~",
        b",".join(b"k%d=v" % n for n in range(32)),
        b"k" * 256 + b"=" + b"v" * 256,
    ],
)
def test_state_that_passes(value: bytes) -> None:
    assert is_tracestate(value)


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"=1",
        b"A=1",
        b"a=1=2",
        b"a=\x01",
        b"a=\xe9",
        b"a=1,b",
        b"a b=1",
        b",".join(b"k%d=v" % n for n in range(33)),
        b"k" * 257 + b"=v",
        b"k=" + b"v" * 257,
        b",".join(b"k%d=%b" % (n, b"v" * 250) for n in range(20)),
    ],
)
def test_state_that_is_dropped(value: bytes) -> None:
    assert not is_tracestate(value)
