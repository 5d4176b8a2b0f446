"""The elements of a JSON array, one after the other, in memory for one element at a time.

An ordinary decoder makes objects of all elements before the first can be examined; for a hostile list they are dozens
of times its size. Here only the skeleton is parsed (RFC 8259 section 2): brackets, commas, and where an element ends.
The caller decodes each element. No step reads more than one element, so a thread can let others run between any two.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Final

_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
# An object without nested objects and escapes, as nearly every element is; an array of the same kind; a scalar. With
# the comma after it that is one step.
_FLAT: Final = rb'\{[^{}"\\]*+(?:"[^"\\]*+"[^{}"\\]*+)*+\}|\[[^"\[\]{}]*+\]|[^"\[\]{},: \t\r\n]++'
_NEXT: Final = re.compile(rb"(%b)[ \t\r\n]*+,[ \t\r\n]*+" % _FLAT)
_WHOLE: Final = re.compile(_FLAT)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]|[^"\[\]{},]++|,', re.DOTALL)

Span = tuple[int, int]


class Malformed(ValueError):
    """Not such a list; the text has the reason, without quoting the list."""


class Elements:
    """The elements of a bare array, or of the array that is the member `tenants` of an object.

    Iterating over it, once, yields where each element begins and ends; whether the element is valid JSON is not
    checked. Raises Malformed for a broken skeleton, and for an element or member longer than `longest` bytes.
    `members` has those of the members `others` that have been found so far, raw; each may be given once.
    """

    def __init__(self, data: bytes | bytearray, longest: int, others: Iterable[bytes] = ()) -> None:
        self.members: dict[bytes, bytes] = {}
        self._others = {b'"%b"' % name: name for name in others}
        self._data = data
        self._longest = longest
        # A byte order mark may be ignored (section 8.1).
        self._at = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0

    def __iter__(self) -> Iterator[Span]:
        opening = self._sign()
        if opening == b"[":
            yield from self._array()
        elif opening == b"{":
            yield from self._object()
        else:
            raise Malformed("it begins with neither [ nor {")
        if self._sign():
            raise self._wrong("there is more data after its end")

    def _array(self) -> Iterator[Span]:
        """The elements after the opening bracket."""
        if self._peek() == b"]":
            self._at += 1
            return
        data, longest = self._data, self._longest
        while True:
            while step := _NEXT.match(data, self._at, self._at + longest):
                self._at = step.end()
                yield step.span(1)
            yield self._value("an element")
            sign = self._sign()
            if sign == b"]":
                return
            if sign != b",":
                raise self._wrong("a comma or ] was expected")

    def _object(self) -> Iterator[Span]:
        """The elements of that member of an object, after the opening brace."""
        found = begun = False
        while self._peek() != b"}" or begun:
            begun = True
            start, end = self._value("a name")
            name = bytes(self._data[start:end])
            if not name.startswith(b'"') or self._sign() != b":":
                raise self._wrong("a name and a colon were expected")
            if name == b'"tenants"':
                if found or self._sign() != b"[":
                    raise Malformed("tenants is given twice" if found else "tenants is not an array")
                found = True
                yield from self._array()
            else:
                start, end = self._value("a member")
                if name in self._others:
                    other = self._others[name]
                    if other in self.members:
                        raise Malformed(f"{other.decode()} is given twice")
                    self.members[other] = bytes(self._data[start:end])
            sign = self._sign()
            if sign == b"}":
                break
            if sign != b",":
                raise self._wrong("a comma or } was expected")
        else:
            self._at += 1
        if not found:
            raise Malformed("it is an object without the member tenants")

    def _value(self, what: str) -> Span:
        """The next value, whatever it is."""
        start = self._skip()
        data, bound = self._data, min(start + self._longest, len(self._data))
        flat = _WHOLE.match(data, start, bound)
        if flat is not None:
            self._at = flat.end()
            return flat.span()
        depth, at = 0, start
        while True:
            token = _TOKEN.match(data, at, bound)
            if token is None:
                if bound < len(data):
                    raise Malformed(f"{what} is longer than {self._longest} bytes (at byte {start})")
                raise Malformed("it ends too early")
            sign = data[at : at + 1]
            if sign in b"[{":
                depth += 1
            elif sign in b"]}":
                depth -= 1
            if depth < 0 or (depth == 0 and sign in b",:"):
                raise self._wrong("a value was expected", at)
            at = token.end()
            if depth == 0:
                self._at = at
                return start, at

    def _skip(self) -> int:
        """Skip white space, at most as much as one element may be long."""
        at, data = self._at, self._data
        match = _SPACE.match(data, at, min(at + self._longest, len(data)))
        at = self._at = at if match is None else match.end()
        if match is not None and match.end() - match.start() == self._longest:
            raise Malformed(f"white space is longer than {self._longest} bytes")
        return at

    def _peek(self) -> bytes:
        at = self._skip()
        return bytes(self._data[at : at + 1])

    def _sign(self) -> bytes:
        """The next character that is not white space; empty at the end."""
        sign = self._peek()
        self._at += len(sign)
        return sign

    def _wrong(self, message: str, at: int | None = None) -> Malformed:
        place = self._at if at is None else at
        return Malformed("it ends too early" if place > len(self._data) else f"{message} (at byte {place})")
