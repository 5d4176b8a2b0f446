"""Traces in headers (W3C Trace Context level 2): what is read of a client's, and the line that a service gets."""

from __future__ import annotations

import re
from typing import Final

# The flags (section 3.2.2.5): whether the caller records the trace, and whether its id is random.
SAMPLED: Final = 0x01
RANDOM: Final = 0x02

_IDS: Final = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Only versions to come may have more after the flags (section 3.2).
_TRACEPARENT: Final = re.compile(rb"00%b|(?!00|ff)[0-9a-f]{2}%b(?:-.*)?" % (_IDS, _IDS))
# One member of tracestate (section 3.3.1.3).
_MEMBER: Final = re.compile(
    rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
# How many members there may be (the same section), and how many bytes a line of them may have. 512 at least must
# pass.
_MEMBERS: Final = 32
_LONGEST: Final = 4096


def is_traceparent(value: bytes) -> bool:
    """Whether a traceparent is well formed."""
    return _TRACEPARENT.fullmatch(value) is not None


def is_tracestate(value: bytes) -> bool:
    """Whether a line of tracestate is well formed, and within its bounds. Members may be empty."""
    if len(value) > _LONGEST:
        return False
    members = value.split(b",")
    return len(members) <= _MEMBERS and all(
        not member or _MEMBER.fullmatch(member) for member in (each.strip(b" \t") for each in members)
    )


def traceparent_line(trace_id: bytes, span: bytes, flags: int) -> bytes:
    """The field line of version 00."""
    return b"traceparent: 00-%b-%b-%02x\r\n" % (trace_id, span, flags)
