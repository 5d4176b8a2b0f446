"""When a certificate is renewed: when the authority suggests (RFC 9773), else when two thirds of its life are gone.

Times are seconds since the epoch. `part` is a random number from 0 to 1, so that many certificates of one moment are
not renewed in one moment.
"""

from __future__ import annotations

from typing import Final

from .layout import NameRecord

# Without a word of the authority's it is at this part of a life, or up to this part of it earlier.
_DUE: Final = 2 / 3
_SPREAD: Final = 1 / 30
# Whatever the authority suggests, so much of a life is left.
_AT_LEAST: Final = 1 / 10
# The bounds of how long until the authority is asked again, in seconds; RFC 9773 section 4.3 has 6 hours without any
# word of its own.
ASK_USUALLY: Final = 21600.0
_ASK_SOONEST: Final = 60.0
_ASK_LATEST: Final = 86400.0
# What a failed renewal waits for, as a part of what is left, and at least and at most, in seconds. Of a very short
# life the least is a part, too. The least keeps, whatever chance takes from it, to five failures an hour for one name
# (order_plan).
_PART_OF_LEFT: Final = 1 / 8
_PART_OF_LIFE: Final = 1 / 20
_RETRY_SOONEST: Final = 960.0
_RETRY_LATEST: Final = 86400.0
# Whatever the authority suggests, a certificate that was renewed is not renewed again before it has had so much of
# its life, and at most so many seconds: a window that is always in the past must not use up all orders.
_REST: Final = 1 / 20
_LONGEST_REST: Final = 43200.0


def by_life(not_before: float, not_after: float, part: float) -> float:
    """When two thirds of a life are gone, or a little earlier."""
    life = max(0.0, not_after - not_before)
    return not_before + life * (_DUE - _SPREAD * part)


def by_window(not_before: float, not_after: float, window: tuple[float, float], part: float) -> float:
    """A time in the authority's window, but not so late that a failure could not be mended (RFC 9773 section 4.2)."""
    start, end = window
    life = max(0.0, not_after - not_before)
    return min(start + max(0.0, end - start) * part, not_after - life * _AT_LEAST)


def renewal_time(record: NameRecord, part: float) -> float:
    """When the certificate of a name is to be renewed, by what its record says."""
    if record.window is not None:
        return max(by_window(record.not_before, record.not_after, record.window, part), record.earliest)
    return by_life(record.not_before, record.not_after, part)


def rests_until(not_before: float, not_after: float, now: float) -> float:
    """Until when a certificate that was renewed now is left alone."""
    return now + min((not_after - not_before) * _REST, _LONGEST_REST)


def ask_after(seconds: float | None) -> float:
    """In how many seconds the authority's window is asked for again; `seconds` are its own Retry-After."""
    return ASK_USUALLY if seconds is None else min(max(seconds, _ASK_SOONEST), _ASK_LATEST)


def retry_latest(record: NameRecord, now: float) -> float:
    """The most seconds that a failed order waits: with a certificate that ends soon, less than a day."""
    left = record.not_after - now
    if left <= 0:
        return _RETRY_LATEST
    soonest = min(_RETRY_SOONEST, (record.not_after - record.not_before) * _PART_OF_LIFE)
    return min(_RETRY_LATEST, max(soonest, left * _PART_OF_LEFT))


def is_overdue(record: NameRecord, now: float) -> bool:
    """Whether a third is gone of what was left when the renewal was due, and it has not happened."""
    if not record.not_after or not record.next_renewal:
        return False
    return now >= record.next_renewal + (record.not_after - record.next_renewal) / 3
