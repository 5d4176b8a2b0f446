"""Which exchanges are traced: a part of them, the same ones at every service that decides by the trace's id.

A trace's id is random, so its lower half, as a number, is below `sample` of all such numbers with probability
`sample`. OpenTelemetry's TraceIdRatioBased compares the same bits, so that services with the same ratio keep the same
traces.

A client may have begun the trace. One behind a trusted proxy is believed (W3C Trace Context section 3.2.2.5.1): its
flag decides. Of any other client the flag, and the id too, may have been chosen to have everything recorded, so that
only so many of these traces a second are.
"""

from __future__ import annotations

from typing import Final

# Beyond all hexadecimal digits.
_ALL: Final = b"g"
_DIGITS: Final = 16


class Sampler:
    """Decides about traces. `sample` is the part of them (0 to 1), `client_traces` how many a second begun by clients
    are sampled that nobody vouches for."""

    __slots__ = ("_bound", "_client_traces", "_left", "_second")

    def __init__(self, sample: float, client_traces: int) -> None:
        bound = round(sample * (1 << 4 * _DIGITS))
        self._bound = _ALL if bound >> 4 * _DIGITS else b"%016x" % bound
        self._client_traces = client_traces
        self._left = 0
        self._second = -1

    def takes(self, trace_id: bytes) -> bool:
        """Whether a trace with this id (32 lower-case hexadecimal digits), begun here, is sampled."""
        return trace_id[_DIGITS:] < self._bound

    def takes_clients(self, trace_id: bytes, *, sampled: bool, trusted: bool, now: float) -> bool:
        """The same for a trace that a client has begun. `sampled` is its flag, and `trusted` says whether a trusted
        proxy has sent it. `now` is monotonic seconds."""
        if trusted:
            return sampled
        if not (sampled or trace_id[_DIGITS:] < self._bound):
            return False
        second = int(now)
        if second != self._second:
            self._second, self._left = second, self._client_traces
        if not self._left:
            return False
        self._left -= 1
        return True
