"""The tool `koder-gateway ready`: whether the running gateway accepts requests, as a health check asks."""

from __future__ import annotations

import argparse
import json

from .admin_client import AdminError, admin_of, ask_page
from .config import Settings
from .ops.console import say


def show_readiness(settings: Settings | None, options: argparse.Namespace) -> int:
    """Ask `/readyz` of the admin port `options.admin`, or without it that of the settings. Returns the exit code: 0
    if the gateway accepts requests, 1 if it does not, or cannot be asked."""
    admin = options.admin
    try:
        if settings is not None:
            admin = admin_of(settings)
        status, text = ask_page(admin, "/readyz")
    except AdminError as error:
        return _show(options, False, [str(error)])
    reasons = _reasons(text)
    if reasons is None or status not in (200, 503):
        return _show(options, False, [f"{admin}: what answers there is no admin port of a gateway"])
    return _show(options, status == 200, reasons or ([] if status == 200 else ["it gives no reason"]))


def _reasons(text: str) -> list[str] | None:
    """Why it is not ready, none if it is, by the JSON of `/readyz`; None if it is something else."""
    try:
        reasons = json.loads(text)["reasons"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return list(map(str, reasons)) if isinstance(reasons, list) else None


def _show(options: argparse.Namespace, ready: bool, reasons: list[str]) -> int:
    if options.json:
        print(json.dumps({"ready": ready, "reasons": reasons}, indent=2))
    elif not ready:
        say("\n".join(f"koder-gateway ready: {_printable(reason)}" for reason in reasons))
    elif not options.quiet:
        print("ready")
    return 0 if ready else 1


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)
