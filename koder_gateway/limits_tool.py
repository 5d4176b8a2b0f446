"""The tool `koder-gateway limits`: who is near a limit or over it, and what shadow limits would have refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .admin_client import AdminError, admin_of, ask
from .config import Settings
from .ops.console import say


def show_limits(settings: Settings | None, options: argparse.Namespace) -> int:
    """Print the limits of a running gateway: that with the admin port `options.admin`, or without it that of the
    settings. Returns the exit code: 0, or 1 if it cannot be asked."""
    admin = options.admin
    try:
        if settings is not None:
            admin = admin_of(settings)
        document = ask(admin, "/limits")
        text = json.dumps(document, indent=2) if options.json else "\n".join(_lines(document))
    except AdminError as error:
        say(f"koder-gateway limits: {error}")
        return 1
    except (KeyError, TypeError, AttributeError, ValueError):
        say(f"koder-gateway limits: {admin}: the gateway there has another version; use its own koder-gateway")
        return 1
    print(text)
    return 0


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    store = document["store"]
    where = (
        "of this gateway process" if store == "memory:" else f"as this gateway knows them; they are kept in {store}"
    )
    yield f"limits {where}, {document['time']}"
    if not document["rules"]:
        yield "no limits are configured"
    for rule in document["rules"]:
        yield ""
        yield from _rule(rule)


def _rule(rule: Mapping[str, Any]) -> Iterator[str]:
    what = f"{rule['in_flight']} in flight" if rule["in_flight"] else f"{rule['rate']}, burst {rule['burst']}"
    counted = " and ".join(rule["key"]) or "all clients together"
    charged = "" if rule["charge"] == "requests" else f", charges {rule['charge']}"
    yield f"{rule['name']}: {what}, by {counted}{charged}; {rule['mode']}"
    admitted, refused, shadowed = rule["admitted"], rule["refused"], rule["would_have_refused"]
    line = f"  since {rule['since']}: {_count(admitted, 'admitted')}, {_count(refused, 'refused')}"
    if shadowed or rule["mode"] == "shadow":
        line += f", {_count(shadowed, 'would have been refused')}"
    yield line
    for title, entries in (("over", rule["over"]), ("near", rule["near"])):
        for entry in entries:
            yield f"  {title}  {_key(entry['key'])}: {_left(rule, entry)}"
    if rule["examined"] < rule["entries"]:
        yield f"  of {rule['entries']} entries the latest {rule['examined']} were examined"
    if rule["mode"] == "shadow":
        yield f'  to enforce it: mode = "enforce" in the [[limits]] with name = "{rule["name"]}"'


def _count(number: int, what: str) -> str:
    return f"{number} {what}"


def _key(key: Mapping[str, str]) -> str:
    # Some values are chosen by clients, and this may be a terminal.
    text = ", ".join(f"{name} {value}" for name, value in key.items())
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "all clients together"


def _left(rule: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    if rule["in_flight"]:
        return f"{entry['of'] - entry['left']} of {entry['of']} in flight"
    return f"{entry['left']} of {entry['of']} left, one more in {entry['wait']} s"
