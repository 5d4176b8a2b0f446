"""The tool `koder-gateway check`: whether the gateway could start, and whether the running one serves what it
should."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .config import ConfigurationError, Settings, entries_in_force, json_entries, read_source, toml_lines
from .config.faults import without_secrets
from .ops.console import WARNING, say

if TYPE_CHECKING:
    # With Twisted, which no other tool must wait for.
    from .live_checks import LiveReport

# Seconds for all hosts together.
_WITHIN: Final = 300.0


def add_arguments(check: argparse.ArgumentParser) -> None:
    """The options of `check`, besides --config."""
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the same as --config FILE")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument(
        "--print", action="store_true", help="print the configuration in force, and where each value comes from"
    )
    check.add_argument("-q", "--quiet", action="store_true", help="print faults only")
    check.add_argument(
        "--live", action="store_true", help="ask the running gateway for each active tenant's discovery document, too"
    )
    live = check.add_argument_group("with --live")
    live.add_argument(
        "--gateway", default="", metavar="HOST:PORT", help="where it is; default: by listen.port, on this machine"
    )
    live.add_argument(
        "--ca", type=Path, metavar="FILE", help="authorities (PEM) of its certificates; default: the system's"
    )
    live.add_argument("--tenant", action="append", default=[], metavar="SLUG", help="only this one; repeatable")
    live.add_argument(
        "--public-port", type=int, default=443, metavar="PORT", help="the port in its clients' URLs; default: 443"
    )
    live.add_argument(
        "--within", type=float, default=_WITHIN, metavar="SECONDS", help="for all of it; default: %(default)g"
    )


def report_faults(faults: Sequence[str], options: argparse.Namespace) -> int:
    """A configuration that cannot be read: say what is wrong; returns the exit code."""
    lines = [line for fault in faults for line in fault.splitlines()]
    if getattr(options, "json", False):
        _print({"ok": False, "faults": lines, "warnings": [], "summary": None, "live": None})
    else:
        say("\n".join(lines))
    return 1


def check(settings: Settings, options: argparse.Namespace) -> int:
    """Whether the gateway could start: the files, and the certificates and endpoints that they name; and what the
    running one answers. Returns the exit code."""
    from .checks import settings_faults

    found: list[str] = []
    faults = [*settings.registry_faults, *settings_faults(settings, found, options.view.made)]
    # Several endpoints may serve the same certificate.
    warnings = list(dict.fromkeys(found))
    live = _live(settings, options, faults) if options.live else None
    warnings += live.warnings if live else ()
    entries = entries_in_force(read_source(options.config, options.view.environ)) if options.print else None
    if options.json:
        printed = {} if entries is None else {"configuration": json_entries(entries)}
        _print({**_document(settings, faults, warnings, live), **printed})
    else:
        _say(settings, faults, warnings, live, options)
    if entries is not None and not options.json:
        print("\n".join(toml_lines(entries)))
    return 1 if faults or (live is not None and live.faults) else 0


def _live(settings: Settings, options: argparse.Namespace, faults: list[str]) -> LiveReport | None:
    """What the running gateway answers; None, and a fault, if it cannot be asked."""
    from .live_checks import LiveCheckError, check_live, hosts_to_ask, place_of

    try:
        place = place_of(settings, options.gateway, options.public_port)
        hosts = hosts_to_ask(settings, options.tenant)
        return check_live(settings, place, hosts, options.ca, options.within)
    except LiveCheckError as error:
        faults.append(f"live: {error}")
    except ConfigurationError as error:
        faults += [f"live: {each}" for each in error.faults]
    return None


def _say(
    settings: Settings,
    faults: list[str],
    warnings: list[str],
    live: LiveReport | None,
    options: argparse.Namespace,
) -> None:
    say("\n".join([*faults, *map(str, live.faults if live else ())]))
    if live is not None and live.left_out:
        say(f"live: {live.left_out} more faults")
    if options.quiet:
        return
    for warning in warnings:
        say(f"warning: {warning}", WARNING)
    # A configuration that is printed stays one that can be read.
    if faults or options.print:
        return
    if live is None or not live.faults:
        summary = _summary(settings)
        print(
            f"{summary['source']}: good: {summary['routes']} routes, {summary['services']} services,"
            f" {summary['limits']} limits, {tenants_told(settings)}"
        )
    if live is not None and not live.faults:
        print(f"live: good: {live.asked} hosts were asked")


def tenants_told(settings: Settings) -> str:
    """How many tenants there are, or where they are read."""
    registry = settings.tenants.registry
    if isinstance(registry, str):
        return f"the tenants are read from {without_secrets(registry)}, which is not queried here"
    return "every slug is a tenant" if settings.registered is None else f"{len(settings.registered)} tenants"


def _summary(settings: Settings) -> dict[str, Any]:
    return {
        "source": str(settings.source or "the defaults"),
        "routes": len(settings.routes),
        "services": len({route.service for route in settings.routes}),
        "limits": len(settings.limits),
        "tenants": None if settings.registered is None else len(settings.registered),
    }


def _document(settings: Settings, faults: list[str], warnings: list[str], live: LiveReport | None) -> dict[str, Any]:
    told = None
    if live is not None:
        told = {
            "asked": live.asked,
            "faults": [
                {"tenant": each.tenant, "origin": each.origin, "kind": each.kind, "message": each.message}
                for each in live.faults
            ],
            "left_out": live.left_out,
        }
    good = not faults and (live is None or not live.faults)
    faults = [*faults, *map(str, live.faults if live else ())]
    return {"ok": good, "faults": faults, "warnings": warnings, "summary": _summary(settings), "live": told}


def _print(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))
