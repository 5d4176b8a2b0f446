"""The elements of a JSON array, one after the other, in memory for one element at a time.

An ordinary decoder makes objects of all elements before the first can be examined; for a hostile list they are dozens
of times its size. Here only the skeleton is parsed (RFC 8259 section 2): brackets, commas, and where an element ends.
The caller decodes each element. No step reads more than one element, so a thread can let others run between any two.
An element that is too long is passed over in such steps: it is not the end of the list.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ..policy.sharded_index import no_pause

_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
# An object without nested objects and escapes, as nearly every element is; an array of the same kind; a scalar. With
# the comma after it that is one step.
_FLAT: Final = rb'\{[^{}"\\]*+(?:"[^"\\]*+"[^{}"\\]*+)*+\}|\[[^"\[\]{}]*+\]|[^"\[\]{},: \t\r\n]++'
_NEXT: Final = re.compile(rb"(%b)[ \t\r\n]*+,[ \t\r\n]*+" % _FLAT)
_WHOLE: Final = re.compile(_FLAT)
_OUTSIDE: Final = re.compile(rb'[^"\[\]{},]*+')
_OPENING: Final = re.compile(rb"[\[{]++")
_CLOSING: Final = re.compile(rb"[\]}]++")
_INSIDE: Final = re.compile(rb'(?:[^"\\]|\\.)*+', re.DOTALL)
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]|[^"\[\]{},]++|,', re.DOTALL)

Span = tuple[int, int]


class Malformed(ValueError):
    """Not such a list; the text has the reason, without quoting the list."""


class Elements:
    """The elements of a bare array, or of the array that is the member `tenants` of an object.

    Iterating over it, once, yields where each element begins and ends; whether the element is valid JSON is not
    checked, and one that is longer than `longest` bytes must not be decoded. Raises Malformed for a broken skeleton,
    and for another member that is longer. `members` has those of the members `others` that have been found so far,
    raw; each may be given once. `rest` is called between any two steps through a long element.
    """

    def __init__(
        self,
        data: bytes | bytearray,
        longest: int,
        others: Iterable[bytes] = (),
        rest: Callable[[], object] = no_pause,
    ) -> None:
        self._rest = rest
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
            span = self._next_value()
            yield self._long_value() if span is None else span
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
        span = self._next_value()
        if span is None:
            raise Malformed(f"{what} is longer than {self._longest} bytes (at byte {self._at})")
        return span

    def _next_value(self) -> Span | None:
        """The same; None if it is too long."""
        start = self._skip()
        data, bound = self._data, min(start + self._longest, len(self._data))
        flat = _WHOLE.match(data, start, bound)
        if flat is not None and flat.end() == bound < len(data) and data[bound - 1 : bound] not in b"]}":
            # A number or a word that goes on, or may.
            return None
        if flat is not None:
            self._at = flat.end()
            return flat.span()
        depth, at = 0, start
        while True:
            token = _TOKEN.match(data, at, bound)
            if token is None:
                if bound < len(data):
                    return None
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

    def _long_value(self) -> Span:
        """The next value, however long it is, perhaps with white space behind it."""
        data, start = self._data, self._at
        depth, at = 0, start
        while True:
            self._rest()
            bound = min(at + self._longest, len(data))
            at = self._end_of(_OUTSIDE, at, bound)
            sign = data[at : at + 1]
            if at == bound < len(data):
                continue
            if not sign:
                raise Malformed("it ends too early")
            if depth == 0 and sign in b",]}":
                break
            if sign in b"[{":
                end = self._end_of(_OPENING, at, bound)
                depth += end - at
                at = end
                continue
            if sign in b"]}":
                end = self._end_of(_CLOSING, at, min(bound, at + depth))
                depth -= end - at
                at = end
            else:
                at = self._end_of_string(at + 1) if sign == b'"' else at + 1
            if depth == 0:
                break
        self._at = at
        return start, at

    def _end_of_string(self, at: int) -> int:
        data = self._data
        while data[at : at + 1] != b'"':
            begun = at
            at = self._end_of(_INSIDE, at, min(at + self._longest, len(data)))
            self._rest()
            if at == begun:
                raise Malformed("it ends too early")
        return at + 1

    def _end_of(self, pattern: re.Pattern[bytes], at: int, bound: int) -> int:
        match = pattern.match(self._data, at, bound)
        return at if match is None else match.end()

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
