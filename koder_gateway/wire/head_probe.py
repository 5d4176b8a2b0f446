"""Checks a request's head that arrives in pieces, so that a malformed one is refused before its deadline."""

from __future__ import annotations

import re
from typing import Any, Final

import httptools

from ..errors import Refusal
from .request_syntax import BAD_START_LINE, START_LINE, FieldSink, syntax_refusal

# The beginning of a request line, as far as it may have come.
_BEGINNING: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?: (?:[^\x00-\x20\x7f]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?)?)?"
)
# So much of a head is looked at whenever some of it comes.
_FIRST: Final = 64


class HeadProbe:
    """Checks a head that arrives in pieces, so that a malformed one is refused at once and not at its deadline.

    No byte is checked twice: a head that arrives slowly costs no more than its bytes.
    """

    __slots__ = ("_fed", "_parser", "_started", "_unknown", "_waiting")

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(FieldSink())
        # How much has been looked at, and what has come since.
        self._fed = 0
        self._waiting = b""
        # Whether the start line is whole and good, and what llhttp has against its beginning.
        self._started = False
        self._unknown: Exception | None = None

    def fault(self, piece: bytes, so_far: bytes | bytearray) -> Refusal | None:
        """The refusal of the head `so_far`, which ends with `piece`, if it can never become valid."""
        line_end = b"\n" in piece
        waiting = self._waiting + piece if self._waiting else piece
        # An unfinished value is copied, and an unknown beginning is looked at, with each piece of it: the longer it
        # is, the larger the pieces have to be.
        enough = self._fed if self._unknown is not None else self._fed >> 6
        if not line_end and self._fed > _FIRST and len(waiting) <= enough:
            self._waiting = waiting
            return None
        self._fed += len(waiting)
        self._waiting = b""
        if self._unknown is None:
            try:
                self._parser.feed_data(waiting)
            except httptools.HttpParserUpgrade:
                return None
            except httptools.HttpParserError as error:
                if self._started:
                    return syntax_refusal(so_far, error)
                self._unknown = error
        if self._unknown is not None:
            if not line_end and _BEGINNING.fullmatch(so_far):
                return None  # a method that llhttp does not know; once the line is whole, it is answered with 501
            return syntax_refusal(so_far, self._unknown)
        if line_end and not self._started:
            self._started = True
            if START_LINE.match(so_far) is None:
                return BAD_START_LINE
        return None
