"""Which certificate a client gets for a host, and why, for a person to read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ..acme.layout import Layout, NameRecord, is_name, read_record
from ..config import Settings
from ..listening.endpoint_contexts import AcmeFiles
from ..policy.tenants import Registry, bare_host
from ..tls.certificate_store import CertificateStore
from ..tls.certificates import CertificateError, CertificateFile, load_pair, self_signed_path
from ..tls.folder import folder_location
from ..tls.issued_store import IssuedStore, layered
from ..tls.sni_index import SniIndex
from .ports import acme_files_of


def certificates_on_disk(settings: Settings, now: float) -> SniIndex | None:
    """The certificates that a gateway with these settings would serve on ports without any of their own; None if
    there are none yet. `now` is in seconds since the epoch."""
    operators, own = operators_on_disk(settings, now), None
    if settings.tls.certificates is None:
        own = settings.tenants.base_domain
        path = self_signed_path(settings.state.dir, own)
        try:
            operators = SniIndex([load_pair(own, path, path)])
        except CertificateError:
            # It is made at the first start.
            operators = None
    acme = acme_files_of(settings)
    if acme is None:
        return operators
    issued = IssuedStore(acme.issued)
    issued.look(now, settled=True)
    return layered(operators, issued.names, own)


def operators_on_disk(settings: Settings, now: float) -> SniIndex | None:
    """The certificates of `tls.certificates` that can be used; None if there are none."""
    if settings.tls.certificates is None:
        return None
    return CertificateStore(folder_location(settings.tls.certificates), settings.tls.default).look(now, True).names


def certificate_reason(host: bytes, names: SniIndex | None, settings: Settings, registry: Registry) -> str:
    """Which certificate a client gets that asks for a Host (with or without a port), and why. `names` are the
    certificates, `registry` has the tenants that may have one of their own."""
    name = bare_host(host)
    acme = acme_files_of(settings)
    certificate = None if names is None else names.find(name)
    if certificate is not None:
        return _served(certificate, name, settings, acme)
    waits = "" if acme is None else _waits(name, settings, registry)
    if settings.tls.strict_sni:
        return f"none: no certificate is for this name, and tls.strict_sni refuses such clients with an alert{waits}"
    if names is None:
        return f"a self-signed one, which the gateway makes at its start{waits}"
    return f"the default, {names.default.path}: no certificate is for this name{waits}"


def _served(certificate: CertificateFile, name: bytes, settings: Settings, acme: AcmeFiles | None) -> str:
    path = certificate.path
    matched = _matched(certificate, name)
    if acme is not None and path.parent == acme.issued.certificates:
        record = read_record(Layout.below(settings.state.dir).record(path.stem))
        renewal = f", to be renewed on {_day(record.next_renewal)}" if record and record.next_renewal else ""
        return f"{path}, from the ACME authority, for {matched}{renewal}"
    if settings.tls.certificates is None:
        return f"{path}, self-signed by the gateway, for {matched}"
    return f"{path}, of tls.certificates, for {matched}"


def _matched(certificate: CertificateFile, name: bytes) -> str:
    text = name.decode("ascii", "replace")
    return text if text in certificate.names else f"*.{text.partition('.')[2]}"


def _waits(name: bytes, settings: Settings, registry: Registry) -> str:
    """Why a name has no certificate of the ACME authority."""
    text = name.decode("ascii", "replace")
    tenant = registry.at(name)
    if text not in settings.acme.names:
        if tenant is None:
            return "; none is ordered, since it is neither a tenant's custom domain nor in acme.names"
        if tenant.status != "active":
            return f"; none is ordered, since the tenant {tenant.slug} is {tenant.status}"
    if not is_name(text):
        return "; none is ordered, since no authority issues for such a name"
    record = read_record(Layout.below(settings.state.dir).record(text))
    return f"; {told(record)}"


def told(record: NameRecord | None) -> str:
    """What becomes of a name without a certificate."""
    if record is None:
        return "its own is to be ordered, and the gateway has not looked at it yet"
    if not record.last_fault:
        return f"its own is on the way ({record.state})"
    advice = f"; {record.advice}" if record.advice else ""
    return f"its own is not there yet ({record.state}): {record.last_fault}{advice}"


def is_issued(names: SniIndex | None, name: str, folder: Path) -> bool:
    """Whether the certificate for a name is one of this folder."""
    found = None if names is None else names.find(name.encode("ascii", "ignore"))
    return found is not None and found.path.parent == folder


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
