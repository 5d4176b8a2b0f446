"""Detects text that an editor has saved with more than one byte for each ASCII character."""

from __future__ import annotations

import codecs
from typing import Final

_MARKS: Final = (
    # The first of them begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# Which of the first four bytes are 0 in text that begins with ASCII and has no mark.
_ZEROS: Final = {(1, 2, 3): "UTF-32", (0, 1, 2): "UTF-32", (1, 3): "UTF-16", (0, 2): "UTF-16"}


def wide_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32 where text is that; "" for everything else."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    return _ZEROS.get(tuple(at for at, byte in enumerate(data[:4]) if not byte), "")
