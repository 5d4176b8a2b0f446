"""What a new list is compared with: the tenants in force, of which it may lack a few. A list that lacks many was
truncated, or is another registry's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ..config import ConfigurationError, ListContext, TenantList
from ..policy.limit_rules import LimitRule
from ..policy.tenants import Registry

_TAKE_IT: Final = "if that is intended, reload the gateway (SIGHUP)"


class RegistryCounters(Protocol):
    """Counts how often a registry could not be read, and how many entries of the present list are left out, and says
    whether the last attempt to read it failed."""

    registry_failures: int
    registry_skipped: int
    registry_unread: bool


@dataclass(frozen=True, slots=True)
class RegistryInForce:
    """What applies now. `before` returns the registry, `most` the part of its tenants (0 to 1) that a new list may
    lack, and of its own entries that may be bad; one in any case. `rules` returns the limits by name, None if they
    are not known."""

    before: Callable[[], Registry]
    most: Callable[[], float]
    rules: Callable[[], Mapping[str, LimitRule] | None] = lambda: None

    def context(self, base_domain: str, rest: Callable[[], object], *, changes: bool = False) -> ListContext:
        """The context in which a new list is read."""
        return ListContext(base_domain, self.before(), self.rules(), rest, changes)

    def check_faults(self, name: str, found: TenantList) -> None:
        """Raise ConfigurationError for a list with too many bad entries."""
        found.check(name, self.most())

    def check_losses(self, name: str, after: Registry, in_place: bool, rest: Callable[[], object]) -> None:
        """Raise ConfigurationError, with one line, for a list that lacks too many.

        `in_place`: no tenant may be missing, since the file was written in place and may be incomplete. `rest` is
        called again and again.
        """
        before = self.before()
        if before.is_open:
            return
        lost = before.indices.tenants.count_missing(after.indices.tenants, rest)
        lacks = f"{name}: lacks {lost:,} of {len(before):,} tenants"
        if lost > max(1, int(self.most() * len(before))):
            allowed = f'more than tenants.max_loss = "{100 * self.most():g}%" allows'
            raise ConfigurationError([f"{lacks}, {allowed}; {_TAKE_IT}"])
        if lost and in_place:
            reason = "and was written in place, so it may be incomplete"
            raise ConfigurationError([f"{lacks}, {reason}; rename a complete file to this one, or {_TAKE_IT}"])
