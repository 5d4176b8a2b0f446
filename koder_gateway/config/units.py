"""Durations, sizes and percentages as written in the configuration: "500ms", "2s", "10MiB", "25%"."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# Decimal units are refused: whether 1 MB is 1000000 or 1048576 bytes depends on the reader.
_DECIMAL: Final = {
    "b": "B",
    "k": "KiB",
    "kb": "KiB",
    "m": "MiB",
    "mb": "MiB",
    "g": "GiB",
    "gb": "GiB",
    "tb": "TiB",
}
_QUANTITY: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([A-Za-z]*)")
_PERCENT: Final = re.compile(r"([0-9]{1,3})%")
# A longer duration is a typing error.
MAX_DURATION: Final = 365 * _SECONDS["d"]
MAX_SIZE: Final = 1 << 50


def parse_duration(text: str) -> float:
    """The seconds in "500ms", "2s", "5m", "1h" or "1d"; "0" needs no unit. The ValueError says what would be
    right."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError('is not a duration; write a number and ms, s, m, h or d, as in "30s"')
    number, unit = match.groups()
    if not unit:
        if float(number) == 0:
            return 0.0
        raise ValueError(f'has no unit; for seconds write "{number}s"')
    if unit not in _SECONDS:
        raise ValueError('has an unknown unit; write a number and ms, s, m, h or d, as in "30s"')
    # Milliseconds are divided, not multiplied by an inexact 0.001: "2300ms" and "2.3s" are one value.
    seconds = float(number) / 1000 if unit == "ms" else float(number) * _SECONDS[unit]
    if seconds > MAX_DURATION:
        raise ValueError('is more than a year; write at most "365d"')
    return seconds


def parse_percent(text: str) -> int:
    """The percents in "25%". The ValueError says what would be right."""
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise ValueError('is not a percentage; write a whole number and %, as in "25%"')
    percents = int(match[1])
    if not 1 <= percents <= 100:
        raise ValueError('is out of range; write "1%" to "100%"')
    return percents


def parse_size(text: str) -> int:
    """The bytes in "512B", "32KiB", "10MiB", "1GiB" or "1TiB"; "0" needs no unit. The ValueError says what would be
    right."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError('is not a size; write a number and B, KiB, MiB, GiB or TiB, as in "10MiB"')
    number, unit = match.groups()
    if not unit:
        if float(number) == 0:
            return 0
        raise ValueError(f'has no unit; for bytes write "{number}B"')
    if unit not in _BYTES:
        meant = _DECIMAL.get(unit.lower())
        right = f'write "{number}{meant}"' if meant else "write B, KiB, MiB, GiB or TiB"
        raise ValueError(f"has an unknown unit; {right}")
    size = float(number) * _BYTES[unit] if "." in number else int(number) * _BYTES[unit]
    if size != int(size):
        raise ValueError("is not a whole number of bytes; write a smaller unit")
    if size > MAX_SIZE:
        raise ValueError('is too large; write at most "1024TiB"')
    return int(size)
