"""The tool `koder-gateway certificates`: the certificates of a configuration, and what is wrong with them; and the
names that wait for one."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .acme.layout import Layout, NameRecord, read_records
from .config import Settings
from .ops.console import say

if TYPE_CHECKING:
    # With Twisted, which no other tool must wait for.
    from .tls.inventory import CertificateEntry, Inventory

_LEFT: Final = "no active tenant has this name any more; it is left to its end"
_UNSEEN: Final = "the gateway has not looked at it yet"


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
    wanted = _wanted(settings, now)
    inventory, missing = _inventory(settings, now, options.days, wanted)
    waiting = _waiting(settings, inventory, wanted)
    faults = inventory.all_faults
    if options.json:
        document = {
            "ok": not faults,
            "faults": faults,
            "certificates": [_document(entry, now) for entry in inventory.entries],
            "waiting": [{"name": name, "order": _order(record)} for name, record in waiting],
        }
        print(json.dumps(document, indent=2))
        return 1 if faults else 0
    if not options.quiet:
        shown = [_lines(entry, now) for entry in inventory.entries]
        shown += [_waiting_lines(name, record) for name, record in waiting]
        for number, lines in enumerate(shown):
            print("\n" * bool(number) + "\n".join(map(_printable, lines)))
        if missing is not None:
            print(f"no certificate is configured; the gateway makes a self-signed one at its start, {missing}")
    say("\n".join(map(_printable, faults)))
    return 1 if faults else 0


def _inventory(settings: Settings, now: float, days: int, wanted: Collection[str]) -> tuple[Inventory, Path | None]:
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
    if settings.acme.directory is not None:
        inventory.add_issued(Layout.below(settings.state.dir), now, days, wanted)
    for service in settings.services.values():
        if service.client_cert is not None:
            key = service.client_key or service.client_cert
            inventory.add(files_location(key, service.client_cert, None), f"service {service.name}", now, days)
    return inventory, missing


def _wanted(settings: Settings, now: float) -> list[str]:
    """The names that are to have a certificate by ACME, as far as is known here."""
    if settings.acme.directory is None:
        return []
    from .policy.tenants import Registry
    from .service.acme_follower import wanted_names
    from .service.served_certificate import operators_on_disk

    registry = settings.registered or Registry(())
    return wanted_names(registry, settings.acme.names, operators_on_disk(settings, now))


def _waiting(
    settings: Settings, inventory: Inventory, wanted: Collection[str]
) -> list[tuple[str, NameRecord | None]]:
    """The names that have no certificate yet, and what is known of their orders."""
    if settings.acme.directory is None:
        return []
    records = {record.name: record for record in read_records(Layout.below(settings.state.dir))}
    present = {name for entry in inventory.entries if entry.ordered for name in (entry.name, *entry.names)}
    return [(name, records.get(name)) for name in sorted({*wanted, *records} - present)]


def _order(record: NameRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "state": record.state,
        "since": _moment(record.first_seen or None),
        "failures": record.attempts,
        "next_try": _moment(record.next_try or None),
        "next_renewal": _moment(record.next_renewal or None),
        "last_fault": record.last_fault or None,
        "advice": record.advice or None,
    }


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
        "ordered": entry.ordered,
        "order": _order(entry.record),
        "faults": entry.faults,
    }


def _lines(entry: CertificateEntry, now: float) -> Iterator[str]:
    yield f"{entry.name}, for {entry.use}" + (", ordered by the gateway" if entry.ordered else "")
    if entry.starts is not None and entry.expires is not None:
        days = entry.days_left(now)
        left = "expired" if days is not None and days < 0 else f"{days} days left"
        yield f"  names    {', '.join(entry.names) or 'none'}"
        yield f"  issuer   {entry.issuer if entry.issuer != entry.subject else 'itself'}"
        yield f"  valid    {_moment(entry.starts)} to {_moment(entry.expires)}, {left}"
        yield f"  key      {entry.key}"
        yield f"  sha256   {entry.fingerprint}"
    if entry.record is not None:
        yield from _order_lines(entry.record)
    elif entry.ordered:
        yield f"  renewal  none: {_LEFT if entry.left else _UNSEEN}"
    apart = "" if entry.key_path == entry.path else f", key {entry.key_path}"
    yield f"  file     {entry.path}{apart}"


def _waiting_lines(name: str, record: NameRecord | None) -> Iterator[str]:
    if record is None:
        yield f"{name}, without a certificate: the gateway has not looked at it yet"
        return
    yield f"{name}, without a certificate: {record.state}"
    yield from _order_lines(record)


def _order_lines(record: NameRecord) -> Iterator[str]:
    if record.next_renewal and not record.last_fault:
        yield f"  renewal  {_moment(record.next_renewal)}"
    if record.last_fault:
        yield f"  fault    {record.last_fault}"
        if record.advice:
            yield f"  advice   {record.advice}"
        if record.next_try:
            failures = f", after {record.attempts} failures" if record.attempts > 1 else ""
            yield f"  next     {_moment(record.next_try)}{failures}"


def _moment(moment: float | None) -> str | None:
    return None if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _printable(line: str) -> str:
    # What is in a certificate may not control the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days; write a whole one, as in 30")
    return int(text)
