"""Exchanges by tenant, for a bounded number of tenants of the registry; all others are counted together.

Without a registry every well-formed slug is a tenant, so a client chooses it: then no tenant is counted by itself.
Which tenants are is settled by who comes first, and stays: a counter that changed between its tenant and the others
would go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

# Classes of status; `other`: no response. The class of a status is at the place of its first digit.
CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")
# The label of all tenants that are not counted by themselves. A tenant of this name is among them.
_OTHERS: Final = b"other"
_NOBODY: Final = b""
# How many tenants are remembered, with those that are not counted by themselves.
_REMEMBERED: Final = 4096


class TenantCounts:
    """`by_slug` has the counts of every tenant that was met, in the order of `CLASSES`: those of a tenant that is not
    counted by itself are everybody else's. It stays the same dictionary. b"" is for requests without a tenant."""

    __slots__ = ("_exists", "_most", "_others", "_own", "by_slug")

    def __init__(self) -> None:
        self._others = [0] * len(CLASSES)
        self._own: dict[bytes, list[int]] = {_NOBODY: [0] * len(CLASSES)}
        self._exists: Callable[[bytes], bool] = _none
        self._most = 0
        self.by_slug: dict[bytes, list[int]] = {}
        self._remember()

    def follow(self, most: int, exists: Callable[[bytes], bool] | None) -> None:
        """Count at most so many tenants by themselves from now on, each of which `exists`; None: the registry is
        open, and none is. What was counted of others is forgotten: added to the rest it would look like a burst
        there."""
        self._most, self._exists = (0, _none) if exists is None else (most, exists)
        kept = [slug for slug in self._own if slug and self._exists(slug)][: self._most]
        self._own = {slug: self._own[slug] for slug in (_NOBODY, *kept)}
        self._remember()

    def _remember(self) -> None:
        self.by_slug.clear()
        self.by_slug.update(self._own)
        self.by_slug[_OTHERS] = self._others

    def meet(self, slug: bytes) -> list[int]:
        """The counts for a tenant that is not in `by_slug`."""
        counts = self._others
        if len(self._own) <= self._most and self._exists(slug):
            counts = self._own[slug] = [0] * len(CLASSES)
        if counts is not self._others or len(self.by_slug) < _REMEMBERED:
            self.by_slug[slug] = counts
        return counts

    def __iter__(self) -> Iterator[tuple[str, list[int]]]:
        """Each label with its counts."""
        for slug, counts in self._own.items():
            yield slug.decode("ascii"), counts
        yield _OTHERS.decode("ascii"), self._others


def _none(slug: bytes) -> bool:
    """No tenant is counted by itself."""
    return False
