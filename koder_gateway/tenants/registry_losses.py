"""How many tenants a new list may lack: a list that lacks many was truncated, or is another registry's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ..config import ConfigurationError
from ..policy.tenants import Registry

_TAKE_IT: Final = "if that is intended, reload the gateway (SIGHUP) or restart it"


class FailureCount(Protocol):
    """Counts how often a registry could not be read."""

    registry_failures: int


@dataclass(frozen=True, slots=True)
class LossLimit:
    """The comparison of a new list with the previous one. `before` returns the registry in force, `most` the part of
    its tenants that a new list may lack (1.0: all); one tenant may always be missing."""

    before: Callable[[], Registry]
    most: Callable[[], float]

    def check(self, name: str, after: Registry, in_place: bool, rest: Callable[[], object]) -> None:
        """Raise ConfigurationError, with one line, for a list that lacks too many.

        `in_place`: no tenant may be missing, since the file was written in place and may be incomplete. `rest` is
        called between any two tenants.
        """
        before = self.before()
        if before.is_open:
            return
        lost = 0
        for tenant in before:
            rest()
            lost += after.find(tenant.wire) is None
        lacks = f"{name}: lacks {lost:,} of {len(before):,} tenants"
        if lost > max(1, int(self.most() * len(before))):
            allowed = f'more than tenants.max_loss = "{100 * self.most():g}%" allows'
            raise ConfigurationError([f"{lacks}, {allowed}; {_TAKE_IT}"])
        if lost and in_place:
            reason = "and was written in place, so it may be incomplete"
            raise ConfigurationError([f"{lacks}, {reason}; rename a complete file to this one, or {_TAKE_IT}"])
