"""Settings that are valid one by one, but together do not do what they seem to: warnings, not faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Any, Final

from ..policy.certificates import REQUIRED
from ..policy.clients import UNIX, parse_network
from ..policy.limit_rules import LimitRule
from . import defaults
from .faults import Located, close, shown
from .risky_settings import risky_settings
from .settings import Settings

# The ranges that contain all host addresses (RFC 5771, RFC 4291 section 2.4): networks that cover all of one family
# trust every client of that family.
_EVERYBODY: Final = (
    (IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/2"), IPv4Network("192.0.0.0/3")),
    (IPv6Network("2000::/3"),),
)
# How many networks a warning names.
_NAMED: Final = 4


def misspelled_services(settings: Settings) -> Iterator[Located]:
    """Services that no route uses and whose names are similar to those of default services, which then keep their
    defaults."""
    return misspelled(unrouted(settings))


def misspelled(names: Iterable[str]) -> Iterator[Located]:
    """Of services that no route uses, those whose names are similar to those of default services."""
    for name in names:
        meant = close(name, defaults.SERVICES)
        if meant and name not in defaults.SERVICES:
            yield f"services.{name}", f'is used by no route; did you mean "{meant}", which keeps its default address?'


def warning_lines(settings: Settings) -> list[str]:
    """The warnings, each in one line with its key."""
    origins = settings.origins
    return [origins.line(at, warning) for at, warning in _warnings(settings)]


def _warnings(settings: Settings) -> Iterator[Located]:
    """The key and the message of each warning."""
    for name in unrouted(settings):
        if not close(name, defaults.SERVICES):
            yield (
                f"services.{name}",
                "is used by no route, so it gets no requests; add a route, or leave it out",
            )
    for rule in settings.limits:
        if not _covers_any(rule, settings):
            paths = ", ".join(path.decode() for path in rule.paths or ())
            yield (
                f"limits.{rule.name}",
                f"matches no route: no request to {paths} reaches a service; correct its paths, or leave it out",
            )
    for networks in _everybody(settings.listen.trusted_proxies):
        more = f" and {len(networks) - _NAMED} more" if len(networks) > _NAMED else ""
        they = (
            f"{', '.join(map(shown, networks[:_NAMED]))}{more} {'covers' if len(networks) == 1 else 'together cover'}"
        )
        yield (
            "listen.trusted_proxies",
            f"{they} every address, so any client can forge its own; write your proxies' networks",
        )
    if settings.routes and all(_served_suspended(route.path, settings) for route in settings.routes):
        yield (
            "tenants.suspended_allow",
            "covers every route, so a suspended tenant is served like any other; list only what others depend on",
        )
    yield from _walked_around(settings)
    yield from risky_settings(settings)
    yield from settings.context.warnings()
    yield from settings.acme.warnings()


def _everybody(trusted: Iterable[str]) -> Iterator[list[str]]:
    """Networks that cover all of IPv4 or of IPv6: each one that does alone, else those that do together, the widest
    first."""
    parsed = [(text, parse_network(text)) for text in trusted if text != UNIX]
    for everybody in _EVERYBODY:
        kind = type(everybody[0])
        networks = [(text, network) for text, network in parsed if isinstance(network, kind)]
        alone = [[text] for text, network in networks if _cover([network], everybody)]
        yield from alone
        if not alone and _cover([network for _, network in networks], everybody):
            networks.sort(key=lambda each: each[1].prefixlen)
            yield [text for text, _ in networks]


def _cover(networks: Iterable[Any], everybody: Iterable[Any]) -> bool:
    """Whether networks, all of one family, cover each of these."""
    merged = list(collapse_addresses(networks))
    return all(any(part.subnet_of(network) for network in merged) for part in everybody)


def unrouted(settings: Settings) -> Iterator[str]:
    """Configured services, other than the default ones, that no route uses, except the one that has the registry."""
    named = {route.service for route in settings.routes}
    registry = settings.tenants.registry
    for name, service in settings.services.items():
        asked = isinstance(registry, str) and any(registry.startswith(f"{url}/") for url in service.urls)
        if name not in named and name not in defaults.SERVICES and not asked:
            yield name


def _covers_any(rule: LimitRule, settings: Settings) -> bool:
    if rule.paths is None:
        return True
    return any(
        _within(route.path, path) or _within(path, route.path) for route in settings.routes for path in rule.paths
    )


def _served_suspended(path: bytes, settings: Settings) -> bool:
    return any(_within(path, allowed.encode()) for allowed in settings.tenants.suspended_allow)


def _within(path: bytes, prefix: bytes) -> bool:
    return path == prefix or path.startswith(prefix.rstrip(b"/") + b"/")


def _walked_around(settings: Settings) -> Iterator[Located]:
    """Hosts of tenants that require a client certificate although the same tenant can be reached without one: by the
    tenant header on the base domain, or for a custom domain by its slug below the base domain."""
    tenants = settings.tenants
    base, modes = tenants.base_domain, dict(settings.tls.client_auth)
    required = [pattern for pattern, mode in modes.items() if mode == REQUIRED and pattern not in ("*", base)]
    below = [pattern for pattern in required if pattern.endswith(f".{base}")]
    ways = []
    if modes.get(base, modes.get("*")) != REQUIRED:
        ways = [f"{tenants.header} on the base domain"]
    elif not below and modes.get(f"*.{base}", modes.get("*")) != REQUIRED:
        ways = [f"its slug's host below {base}"]
    for pattern in required:
        # Without a registry no tenant has a custom domain.
        for way in ways if pattern in below or tenants.registry is not None else ():
            without = f"{way} reaches the same tenant without"
            yield "tls.client_auth", f"{shown(pattern)} requires a certificate, and {without}; require one there too"
