"""The ways in which a lenient service may read a path, for limits: they must not be bypassed by a spelling.

A path of 8 KiB may be full of letters that take long to normalise. So what has a meaning in paths (slashes,
backslashes, semicolons, and segments of blanks and dots) is found first, in any form that letters have for it. Then
only those segments are normalised that can belong to a configured path, and of these only as much as it may be long.

Each dot segment, empty segment and backslash costs a step in each reading, and each escape one in each decoding. A
path with more of them than honest ones have is not read at all: it may be any path.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple
from unicodedata import category, normalize

# Parts of a segment that may be removed, until nothing is left: white space, dots, and what follows a semicolon. Each
# part matches as much as it can.
_VOID: Final = re.compile(rb"(?:/++[\x00-\x20.]*+(?:;[^/]*+)?+(?=/|\Z))++")
_BLANK: Final = bytes(range(0x21))
_ESCAPE: Final = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_AS_QUOTED: Final = bytes.maketrans(b"%", b"=")
_SLASH: Final = re.compile(rb"/")
_SLASHES: Final = re.compile(rb"//++")
_LEADING: Final = re.compile(rb"/++")
_DOT_SEGMENT: Final = re.compile(rb"/\.\.?(?:[/;]|\Z)")
_HERE: Final = re.compile(rb"/\.(?:;[^/]*+)?+(?=/|\Z)")
_UP: Final = re.compile(rb"/\.\.(?:;[^/]*+)?+(?=/|\Z)")
_EMPTY_SEGMENTS: Final = re.compile(rb"/(?:;[^/]*+)?+(?=/|\Z)(?:/(?:;[^/]*+)?+(?=/|\Z))*+")
# How often a path is decoded: by the service, and by each proxy in between that passes it on decoded.
_DECODINGS: Final = 4
# How many escaped percent signs a path may have to be read: a URL that was escaped twice has fewer.
_TWICE: Final = b"%25"
_TWOFOLD: Final = 128
# How many escapes it may have: honest ones are those of a hundred characters of another script.
_ESCAPES: Final = 512
# How many backslashes, and segments that are empty or begin with a dot, a blank or a semicolon, it may have. A path
# that is too short for its readings to be expensive, in bytes, may have any number.
_ODDITIES: Final = 32
_SHORT: Final = 256
# What such segments begin with, to what is counted together. Two in a row count as more, which is no harm.
_ODD_BEGINNINGS: Final = bytes.maketrans(_BLANK + b".;", b"/" * (len(_BLANK) + 2))
# The characters of which normalising makes a slash, a backslash or a semicolon, or nothing but blanks and dots. (A
# test goes through all of Unicode.)
_SIGNS: Final = {
    character: normalize("NFKC", character)
    for character in "\u2100\u2101\u2105\u2106\uff0f\ufe68\uff3c\u037e\ufe14\ufe54\uff1b\u2024\u2025\u2026\ufe19"
    "\ufe30\ufe52\uff0e\xa0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
}
_ASCII: Final = bytes(range(0x80))
# The i with a dot as a capital and the one without a dot are an i for software that compares letter by letter
# (Java's `equalsIgnoreCase`, Python's `re.IGNORECASE`), though not for Unicode's case folding.
_DOTTED: Final = "\u0130"
_DOTLESS: Final = "\u0131"
# Letters are normalised in pieces of so many characters: a run of marks takes the square of its length.
_PIECE: Final = 128
# How far back such a piece may be cut, so that no letter loses its marks. No configured path has as many marks.
_MARKS: Final = 32
# The vowels and last consonants of Hangul, which are one character with what is before them.
_JAMO: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")
# At most so many characters become one when they are composed (Unicode Standard Annex 15: NFD of one has no more).
_COMPOSED: Final = 4
# What a segment is made of: blanks, a dot, or a few other characters. These may become 18 times as many.
_TOKEN: Final = re.compile(r"[\x00-\x20]++|\.|[^\x00-\x20.]{1,8}+")
# Behind what is left of a segment that is too long for any configured path: no character has this byte.
_CUT: Final = b"\xff"


class Reach(NamedTuple):
    """What of a path can matter to a table of prefixes: their first `depth` segments and as many `dots` as they have;
    segments of at most `longest` bytes, None for any; and the `inner` ones, which other prefixes continue, None for
    all."""

    depth: int
    dots: int = 0
    longest: int | None = None
    inner: frozenset[bytes] | None = None

    @classmethod
    def of(cls, prefixes: Collection[bytes]) -> Reach:
        """That of these prefixes, which begin with a slash and do not end with one."""
        return cls(
            max((path.count(b"/") for path in prefixes), default=0),
            max((path.count(b".") for path in prefixes), default=0),
            max((len(segment) for path in prefixes for segment in path.split(b"/")), default=0),
            frozenset(path[: slash.start()] for path in prefixes for slash in _SLASH.finditer(path)),
        )


def lenient_path(path: bytes, depth: int) -> bytes:
    """The first `depth` segments of a path that `wire.target` accepts, as a lenient service would read them: escapes
    decoded, letters normalised and in lower case, without path parameters (RFC 3986 section 3.3), white space at
    either end, dots at the end, and empty segments.

    Linear, and expensive only for the requested segments: a target may be 8 KiB of slashes.
    """
    return _segments(_with_plain_signs(_decoded(path)), Reach(depth), _normalised)[0]


def lenient_paths(path: bytes, reach: Reach) -> set[bytes] | None:
    """The `lenient_path` of a path, and its other possible readings: with the original letters; decoded more than
    once (`%2574` is `t`), with the dot segments and backslashes that appear resolved; only up to a question mark or a
    hash sign that appears, since a proxy may pass a path on decoded; without a format at the end of the last segment,
    which some frameworks remove. A format may have dots of its own (`token.tar.gz`), so what is before each dot is a
    reading; but no more dots than the configured segments have can be before it.

    What cannot matter within this reach may be cut off, or replaced by what no prefix has.

    None for a path that is too odd to be read: it may be any.
    """
    if path.count(b"%") > _ESCAPES or path.count(_TWICE) > _TWOFOLD:
        return None
    readings: set[bytes] = set()
    for _ in range(_DECODINGS):
        path = _decoded(path)
        plain = _with_plain_signs(path)
        if _too_odd(plain):
            return None
        _read_letters(readings, path, plain, reach)
        end = _end(path)
        if end >= 0:
            proper = path[:end]
            _read_letters(readings, proper, _with_plain_signs(proper), reach)
        if _ESCAPE.search(path) is None:
            break
    return readings


def _too_odd(path: bytes) -> bool:
    """Whether a decoded path has more segments that begin oddly, and backslashes, than are followed."""
    if len(path) <= _SHORT:
        return False
    most = _ODDITIES - path.count(b"\\")
    return _more(path, b"/", most) and _more(path.translate(_ODD_BEGINNINGS), b"//", most)


def _more(path: bytes, part: bytes, most: int) -> bool:
    """Whether there is more than so much of a part. To count all of it takes ten times as long, where it is all that
    the path has."""
    return most < 0 or len(path.split(part, most + 1)) > most + 1


def _end(path: bytes) -> int:
    """Where a path ends for a server that gets it decoded: a query or a fragment begins. -1 where neither does."""
    query, fragment = path.find(b"?"), path.find(b"#")
    return min(query, fragment) if query >= 0 <= fragment else max(query, fragment)


def _read_letters(readings: set[bytes], path: bytes, plain: bytes, reach: Reach) -> None:
    """Add the readings of a decoded path, with its own letters and with normalised ones. `plain` is the path with
    plain signs."""
    _read(readings, path.lower(), reach, bytes)
    if not path.isascii():
        _read(readings, plain, reach, lambda segment: _bounded(segment, reach))


def _read(readings: set[bytes], path: bytes, reach: Reach, letters: Callable[[bytes], bytes]) -> None:
    """Add the readings of a decoded path whose letters `letters` reads."""
    readings.update(_segments(path, reach, letters))
    if b"\\" in path or (b"." in path and _DOT_SEGMENT.search(path)):
        # Some services read a backslash as a slash. Some merge slashes first; for others `..` takes away the empty
        # segment between two.
        slashed = path.replace(b"\\", b"/")
        forms = [slashed]
        if b"//" in slashed or b"/;" in slashed:
            forms.append(_EMPTY_SEGMENTS.sub(b"", _SLASHES.sub(b"/", slashed)))
        for form in forms:
            readings.update(_segments(_resolved(form), reach, letters))


def _decoded(path: bytes) -> bytes:
    """A path with its escapes decoded once; a percent sign that begins no escape stays."""
    if b"%" not in path:
        return path
    # Quoted-printable is percent-encoding with another sign, and is decoded in C. Each escape takes two bytes off;
    # what is none takes fewer, apart from ends of lines.
    if b"\n" not in path and b"\r" not in path:
        quoted = path.replace(b"=", b"=3D").translate(_AS_QUOTED)
        decoded = a2b_qp(quoted)
        if len(quoted) - len(decoded) == 2 * quoted.count(b"="):
            return decoded
    return a2b_qp(_ESCAPE.sub(b"=", path.replace(b"=", b"=3D")))


def _with_plain_signs(path: bytes) -> bytes:
    """A path in UTF-8, with ASCII for the letters that have a meaning in paths."""
    if path.isascii():
        return path
    # What is not ASCII is looked through first: it is shorter, or all of the path.
    others = path.translate(None, _ASCII).decode("utf-8", "replace")
    signs = [character for character in _SIGNS if character in others]
    if not signs:
        # Of what is no UTF-8 only a few bytes are ever compared.
        return path
    text = path.decode("utf-8", "replace")
    for character in signs:
        text = text.replace(character, _SIGNS[character])
    return text.encode()


def _normalised(segment: bytes) -> bytes:
    """A segment in lower case, with letters of other forms (such as fullwidth ones) replaced by the plain letters."""
    return segment.lower() if segment.isascii() else _composed(segment.decode("utf-8", "replace"))


def _bounded(segment: bytes, reach: Reach) -> bytes:
    """The same, if it is not too long for any configured path. Of a longer one it is only what is before a dot that
    may be: the rest becomes one byte that no path has."""
    if segment.isascii() or reach.longest is None:
        return _normalised(segment)
    text = segment.decode("utf-8", "replace")
    kept, whole = _head(text, _COMPOSED * reach.longest, reach)
    return _composed(kept) if whole else _composed(kept) + _CUT


def _head(text: str, most: int, reach: Reach) -> tuple[str, bool]:
    """The beginning of a segment that neither begins nor ends with blanks: as much as can be of a configured path, or
    can be a name before a dot that does. With it whether that is all."""
    kept: list[str] = []
    length, dots = 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == ".":  # noqa: S105 (a part of a path)
            # Behind so many dots there is no name any more.
            if dots > reach.dots:
                return "".join(kept), False
            dots += 1
            length += 1
        elif token[0] <= " ":
            # Blanks before a dot are not part of the name.
            token = token[: most + 1]
            length += len(token)
        else:
            length += len(token if token.isascii() else normalize("NFKD", token))
            if length > most:
                return "".join(kept), False
        kept.append(token)
    return "".join(kept), True


def _composed(text: str) -> bytes:
    composed = normalize("NFKC", text) if len(text) <= _PIECE else "".join(_composed_pieces(text))
    return composed.replace(_DOTTED, "i").replace(_DOTLESS, "i").casefold().encode().lower()


def _composed_pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _PIECE
        if end < len(text):
            end = next((at for at in range(end, end - _MARKS, -1) if _begins(text[at])), end)
        yield normalize("NFKC", text[start:end])
        start = end


def _begins(character: str) -> bool:
    """Whether a character is never one with what is before it."""
    if character.isascii():
        return True
    first = normalize("NFKD", character)[0]
    return category(first)[0] != "M" and _JAMO.match(first) is None


def _resolved(path: bytes) -> bytes:
    """A path without dot segments (RFC 3986 section 5.2.4). Costs a step for each `..`, not for other segments."""
    first, *others = _UP.split(_HERE.sub(b"", path))
    for rest in others:
        first = first[: first.rfind(b"/")] + rest
    return first


def _segments(path: bytes, reach: Reach, letters: Callable[[bytes], bytes]) -> tuple[bytes, ...]:
    """The first segments of a decoded path, as `letters` reads each; if these include the path's last one, also
    without a format, which begins behind at most so many dots as there may be."""
    read = b""
    last = b""
    position = 0
    for _ in range(reach.depth):
        if reach.inner is not None and read not in reach.inner:
            # No prefix continues here.
            break
        void = _VOID.match(path, position)
        if void is not None:
            position = void.end()
        slashes = _LEADING.match(path, position)
        if slashes is None:
            break
        start = slashes.end()
        end = path.find(b"/", start)
        position = len(path) if end < 0 else end
        parameters = path.find(b";", start, position)
        last = _stripped(letters(_stripped(path[start : position if parameters < 0 else parameters])))
        before, read = read, read + b"/" + last
    if b"." not in last:
        return (read,)
    void = _VOID.match(path, position)
    if (position if void is None else void.end()) < len(path):
        return (read,)
    return read, *(before + b"/" + name for name in _without_formats(last, reach.dots))


def _stripped(segment: bytes) -> bytes:
    return segment.lstrip(_BLANK).rstrip(_BLANK + b".")


def _without_formats(segment: bytes, dots: int) -> Iterator[bytes]:
    """What is before each dot of a segment, from the first one to the one behind so many `dots`."""
    dot = segment.find(b".")
    while dot >= 0 and dots >= 0:
        name = segment[:dot].rstrip(_BLANK + b".")
        if name:
            yield name
        dot = segment.find(b".", dot + 1)
        dots -= 1
