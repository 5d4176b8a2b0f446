"""The entries of a list of tenants, in any format: each is a tenant, or is left out with its faults.

One bad entry must not switch the others off. But a list with many bad entries is a wrong or a broken one, and is
refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..policy.limit_rules import LimitRule, RateOverride
from ..policy.registry_builder import RegistryBuilder
from ..policy.sharded_index import no_pause
from ..policy.tenants import Registry, Tenant, is_slug, unpacked
from .faults import BoundedFaults, ConfigurationError, Located, ReadError, below
from .kinds import Kind, Where, choice, listing
from .rate_overrides import OVERRIDES, read_overrides
from .tables import made, setting
from .values import DOMAIN, ORIGIN, SLUG

# No value of a tenant depends on the place of the list.
ANYWHERE: Final = Where(Path("/"), Path("/"))
# Domains that need no closer look: in lower case, with a dot, and no address, since a letter begins the last label.
_DOMAIN: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LONGEST: Final = 253
_STATUSES: Final = ("active", "suspended")
_KEYS: Final = frozenset(("slug", "domains", "status"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEntry:
    """One table of tenants."""

    slug: str = setting(
        SLUG,
        about="1 to 63 of `a-z`, `0-9` and `-`, not at either end. Each once.",
    )
    domains: tuple[str, ...] = setting(
        listing(DOMAIN),
        [],
        about="Custom domains, outside the base domain. Each once in the whole file.",
    )
    status: str = setting(
        choice(*_STATUSES),
        "active",
        about='`"suspended"` answers 403 `tenant_suspended`, except at the paths of `tenants.suspended_allow`.',
    )
    cors_origins: tuple[str, ...] = setting(
        listing(ORIGIN),
        [],
        about="Origins allowed for this tenant, [wildcards](#wildcard-origins) too, whose pages may [change "
        "nothing](operations.md#pages-of-other-tenants) of other tenants.",
    )
    limits: Mapping[str, RateOverride] = setting(
        OVERRIDES,
        {},
        about="The tenant's own figures for limits, by the names of these limits.",
    )


def _tenant(entry: TenantEntry) -> Tenant:
    status = cast(Literal["active", "suspended"], entry.status)
    return Tenant(entry.slug, entry.domains, status, entry.cors_origins, entry.limits)


TENANT: Final = made(TenantEntry, _tenant)


@dataclass(frozen=True, slots=True)
class TenantList:
    """What a list says. `faults` has a line for each of the first faults; `skipped` of the `entries` were left out
    for one. `changes`: the list has only changes to the registry before."""

    registry: Registry
    faults: tuple[str, ...] = ()
    skipped: int = 0
    entries: int = 0
    changes: bool = False

    def check(self, name: str, most: float) -> None:
        """Raise ConfigurationError if more than this part of the entries (0 to 1) is left out, and more than one; or
        all of them."""
        if not self.skipped or self.skipped <= max(1, int(most * self.entries)) < self.entries:
            return
        if self.skipped == self.entries:
            raise ConfigurationError(self.faults)
        allowed = f'more than tenants.max_loss = "{100 * most:g}%" allows'
        raise ConfigurationError(
            [*self.faults, f"{name}: has faults in {self.skipped:,} of {self.entries:,} entries, {allowed}"]
        )


@dataclass(frozen=True, slots=True)
class ListContext:
    """What the reading of a list depends on, besides the list.

    `before` is the registry in force, None if none is known. `rules` are the configured limits by name, None if these
    are not known either. `changes`: the entries are changes to `before`. `rest` is called between any two
    entries.
    """

    base_domain: str
    before: Registry | None = None
    rules: Mapping[str, LimitRule] | None = None
    rest: Callable[[], object] = no_pause
    changes: bool = False


class TenantListReading:
    """The tenants and faults read so far of a list that messages call `name`."""

    def __init__(self, name: str, context: ListContext) -> None:
        self.tally = BoundedFaults(name)
        self.entries = 0
        # The slugs of tenants that were read since the owner emptied it.
        self.page: list[bytes] = []
        self._skipped = 0
        self._before = context.before
        self._rules = context.rules
        self._rest = context.rest
        # Of changes to a registry, those that have been made.
        self._changes = context.changes
        self._changed: set[bytes] = set()
        self._builder = RegistryBuilder(context.base_domain, context.before, context.rest, changes=context.changes)

    def add(self, at: str, value: object, retell: Callable[[Located], Located] = lambda fault: fault) -> None:
        """Read an entry, whose faults are located below `at`. `retell` may complete a fault."""
        self._rest()
        self.entries += 1
        tenant = _plain(value)
        if tenant is None:
            tenant = self._read(at, value, retell)
        if tenant is not None:
            self._take(at, tenant)

    def _take(self, at: str, tenant: Tenant) -> None:
        if self._changes and tenant.wire not in self._changed:
            self._changed.add(tenant.wire)
            self._builder.remove(tenant.wire)
        fault = self._builder.add(tenant)
        if fault is None:
            self.page.append(tenant.wire)
        else:
            self._skipped += 1
            self.tally.add(at, fault)

    def add_unreadable(self, at: str, message: str, value: object = None) -> None:
        """Leave out an entry that is none; `value` is what could be read of it."""
        self.entries += 1
        self._skip(at, [("", message)], value)

    def _skip(self, at: str, faults: Iterable[Located], value: object) -> None:
        self._skipped += 1
        self.tally.add_all(below(at, faults))
        if isinstance(value, dict) and _reads(SLUG, value.get("slug")):
            domains = value.get("domains")
            readable = domains if isinstance(domains, list) else ()
            slug = value["slug"].encode()
            if self._changes and slug not in self._changed:
                self._changed.add(slug)
                self._builder.remove(slug)
            self._builder.add_faulty(slug, (each for each in readable if _reads(DOMAIN, each)))

    def _read(self, at: str, value: object, retell: Callable[[Located], Located]) -> Tenant | None:
        if isinstance(value, dict) and "limits" in value:
            limits, wrong = read_overrides(value["limits"], self._rules)
            self.tally.add_all(below(f"{at}.limits", wrong))
            value = {**value, "limits": limits}
        try:
            return TENANT.read(value, ANYWHERE)
        except ReadError as misread:
            self._skip(at, map(retell, misread.faults), value)
            return None

    def keep(self, slug: bytes) -> bool:
        """Take a tenant as it was in the registry before; False if it is not there."""
        record = None if self._before is None else self._before.indices.tenants.get(slug)
        if record is None:
            return False
        self._rest()
        self.entries += 1
        self._take("", unpacked(slug, record))
        return True

    def remove(self, slug: bytes) -> None:
        """Forget a tenant of the registry before, unless the changes have it too."""
        self._rest()
        if slug not in self._changed:
            self._builder.remove(slug)

    def result(self, at: str) -> TenantList:
        """What was read; contradictions between entries are located at `at`."""
        registry = self._builder.registry(lambda sentence: self.tally.add(at, sentence))
        return TenantList(registry, self.tally.lines(), self._skipped, self.entries, self._changes)

    @property
    def contested(self) -> frozenset[bytes]:
        """After the result: the slugs of tenants that entries contradict, which may be other than any entry says."""
        return frozenset(self._builder.contested)


def _reads(kind: Kind[Any], value: object) -> bool:
    try:
        kind.read(value, ANYWHERE)
    except ReadError:
        return False
    return True


def _plain(value: object) -> Tenant | None:
    """The tenant of an entry that can be read at a glance, as nearly every one can."""
    if type(value) is not dict or not value.keys() <= _KEYS:
        return None
    slug, domains, status = value.get("slug"), value.get("domains", ()), value.get("status", "active")
    if type(slug) is not str or status not in _STATUSES or not slug.isascii() or not is_slug(slug.encode()):
        return None
    if not domains and isinstance(domains, (list, tuple)):
        return Tenant(slug, (), status)
    if type(domains) is not list or not all(map(_is_plain_domain, domains)) or len(set(domains)) < len(domains):
        return None
    return Tenant(slug, tuple(domains), status)


def _is_plain_domain(name: object) -> bool:
    return type(name) is str and len(name) <= _LONGEST and _DOMAIN.fullmatch(name) is not None
