"""Runs of small chunks, parsed by llhttp at once where parsing each line would be expensive (RFC 9112 section 7.1).

A run consists of whole chunks whose lines have only a size without leading zeros. Nothing is refused here: bytes that
are not exactly so, or that may have more framing than data, are not a run, and the caller parses them line by line.

llhttp reports the data of each chunk, but not its position. So after a read it gets single bytes until one of them is
reported as data. Then the position of that chunk's data is known; its line is before it, and the run ends where that
line begins. If the run is exactly as long as the sizes of its chunks require, its lines contain nothing else.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import httptools

# How many bytes are worth creating a parser, and how many are read at once.
SMALLEST: Final = 160
_LARGEST: Final = 8192
# Bytes between the data of two chunks, for a size of four digits.
_BETWEEN: Final = 8
_HEAD: Final = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
# A chunk whose size has one digit has this much framing: its line and the end of its data.
_FRAMING: Final = 5
# The sizes of one digit.
_ONE_DIGIT: Final = bytes(range(16))


class Run(NamedTuple):
    """Chunks that take `size` bytes, and their data."""

    size: int
    payload: bytes


class _Data:
    """The callbacks for llhttp: they keep the data of chunks."""

    __slots__ = ("on_body", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append


def read_run(data: bytes, position: int, allowance: int) -> Run | None:
    """The run that begins in `data` at `position`, where a chunk begins; None if there is no long one.

    `allowance` is how many bytes the framing may exceed the data by, which no part of the run does: a chunk of one
    byte takes six, of which four are too many.
    """
    length = min(_LARGEST, len(data) - position - _BETWEEN, (allowance - _BETWEEN) * 3 // 2)
    if length < SMALLEST - _BETWEEN:
        return None
    sink = _Data()
    run = _read(sink, data, position, length)
    if run is None and len(sink.pieces) > 2:
        # An obstacle, such as the message's end: the chunks before it may be a run.
        pieces = sink.pieces[:-2]
        run = _read(_Data(), data, position, sum(map(len, pieces)) + _framing(pieces))
    return run


def _read(sink: _Data, data: bytes, position: int, length: int) -> Run | None:
    # Behind LF a chunk's data might begin, or go on: not so behind anything else.
    piece = data[position : position + length].rstrip(b"\n")
    begun = end = position + len(piece)
    pieces = sink.pieces
    parser = httptools.HttpRequestParser(sink)
    try:
        parser.feed_data(_HEAD)
        parser.feed_data(piece)
        before = len(pieces)
        while len(pieces) == before:
            if end - begun > _BETWEEN:
                return None
            parser.feed_data(data[end : end + 1])
            end += 1
    except httptools.HttpParserError:
        return None
    # Where the data of the last chunk begins: with the byte that has come back, or with what came before it.
    start = end - 1
    if start == begun:
        start -= len(pieces[-2]) if before else 0
        del pieces[-2:]
    else:
        del pieces[-1:]
    size = data.rfind(b"\n", position, start - 1) + 1 - position
    payload = b"".join(pieces)
    if not pieces or size != len(payload) + _framing(pieces):
        return None
    return Run(size, payload)


def _framing(pieces: list[bytes]) -> int:
    """The bytes that these chunks have besides their data, where each line is its size alone."""
    try:
        lengths = bytes(map(len, pieces))
        more = 0
    except ValueError:
        lengths = bytes([len(piece) for piece in pieces if len(piece) < 256])
        more = sum((len(piece).bit_length() + 3) // 4 - 1 for piece in pieces if len(piece) >= 256)
    return _FRAMING * len(pieces) + len(lengths.translate(None, _ONE_DIGIT)) + more
