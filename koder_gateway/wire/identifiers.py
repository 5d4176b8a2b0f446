"""Identifiers that the gateway makes: request ids and trace contexts (W3C Trace Context section 3.2)."""

from __future__ import annotations

import os

# Random bytes are fetched in bulk: one system call serves a few hundred requests.
_BULK = 8192


class IdentifierSource:
    """Random identifiers as hexadecimal bytes; they reveal nothing about their number or time."""

    __slots__ = ("_hex", "_position")

    def __init__(self) -> None:
        self._hex = b""
        self._position = 0

    def random_hex(self, digits: int) -> bytes:
        """This many hexadecimal digits (at most 64)."""
        position = self._position
        end = position + digits
        if end > len(self._hex):
            self._hex = os.urandom(_BULK).hex().encode("ascii")
            position, end = 0, digits
        self._position = end
        return self._hex[position:end]

    def trace(self) -> tuple[bytes, bytes]:
        """A new trace: its id, and the header line that begins it, sampled: otherwise each service would begin its
        own."""
        digits = self.random_hex(48)
        trace_id = digits[:32]
        return trace_id, b"traceparent: 00-%b-%b-01\r\n" % (trace_id, digits[32:])
