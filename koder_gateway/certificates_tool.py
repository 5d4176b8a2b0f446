"""The tool `koder-gateway certificates`: the certificates of a configuration, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import Settings
from .ops.console import say

if TYPE_CHECKING:
    # With Twisted, which no other tool must wait for.
    from .tls.inventory import CertificateEntry, Inventory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `certificates`, besides --config."""
    parser.add_argument(
        "--days",
        type=_days,
        default=0,
        metavar="N",
        help="a certificate with fewer days left is a fault; default: 0, only an expired one",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="print faults only")


def show_certificates(settings: Settings, options: argparse.Namespace) -> int:
    """Print each certificate that clients or services are shown. Returns the exit code: 0, or 1 if one cannot be
    used, or has expired, or has fewer than `options.days` days left."""
    now = time.time()
    inventory, missing = _inventory(settings, now, options.days)
    faults = inventory.all_faults
    if options.json:
        document = {
            "ok": not faults,
            "faults": faults,
            "certificates": [_document(entry, now) for entry in inventory.entries],
        }
        print(json.dumps(document, indent=2))
        return 1 if faults else 0
    if not options.quiet:
        for number, entry in enumerate(inventory.entries):
            print("\n" * bool(number) + "\n".join(map(_printable, _lines(entry, now))))
        if missing is not None:
            print(f"no certificate is configured; the gateway makes a self-signed one at its start, {missing}")
    say("\n".join(map(_printable, faults)))
    return 1 if faults else 0


def _inventory(settings: Settings, now: float, days: int) -> tuple[Inventory, Path | None]:
    """What is there; and where the self-signed certificate will be, if it is needed and not there yet."""
    from .listening.endpoint_faults import EndpointError, as_endpoint_error
    from .listening.endpoints import own_place, taken_apart
    from .tls.certificates import self_signed_path
    from .tls.folder import files_location, folder_location
    from .tls.inventory import Inventory

    inventory, missing = Inventory(), None
    shared = False
    for text in settings.listen.port:
        try:
            with as_endpoint_error(text):
                _, _, arguments = taken_apart(text)
                place = None if arguments is None else own_place(arguments)
        except EndpointError as error:
            inventory.faults += str(error).splitlines()
            continue
        shared = shared or (arguments is not None and place is None)
        if place is not None:
            inventory.add(place, "clients", now, days)
    tls = settings.tls
    if tls.certificates is not None:
        inventory.add(folder_location(tls.certificates), "clients", now, days, tls.default)
    elif shared:
        own = self_signed_path(settings.state.dir, settings.tenants.base_domain)
        if own.exists():
            inventory.add(files_location(own, own, None), "clients", now, days)
        else:
            missing = own
    for service in settings.services.values():
        if service.client_cert is not None:
            key = service.client_key or service.client_cert
            inventory.add(files_location(key, service.client_cert, None), f"service {service.name}", now, days)
    return inventory, missing


def _document(entry: CertificateEntry, now: float) -> dict[str, Any]:
    return {
        "name": entry.name,
        "use": entry.use,
        "file": str(entry.path),
        "key_file": str(entry.key_path),
        "names": list(entry.names),
        "subject": entry.subject,
        "issuer": entry.issuer,
        "starts": _moment(entry.starts),
        "expires": _moment(entry.expires),
        "days_left": entry.days_left(now),
        "key": entry.key,
        "sha256": entry.fingerprint,
        "faults": entry.faults,
    }


def _lines(entry: CertificateEntry, now: float) -> Iterator[str]:
    yield f"{entry.name}, for {entry.use}"
    if entry.starts is not None and entry.expires is not None:
        days = entry.days_left(now)
        left = "expired" if days is not None and days < 0 else f"{days} days left"
        yield f"  names    {', '.join(entry.names) or 'none'}"
        yield f"  issuer   {entry.issuer if entry.issuer != entry.subject else 'itself'}"
        yield f"  valid    {_moment(entry.starts)} to {_moment(entry.expires)}, {left}"
        yield f"  key      {entry.key}"
        yield f"  sha256   {entry.fingerprint}"
    apart = "" if entry.key_path == entry.path else f", key {entry.key_path}"
    yield f"  file     {entry.path}{apart}"


def _moment(moment: float | None) -> str | None:
    return None if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _printable(line: str) -> str:
    # What is in a certificate may not control the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days; write a whole one, as in 30")
    return int(text)
