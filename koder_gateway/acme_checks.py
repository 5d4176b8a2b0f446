"""The checks of `koder-gateway check` about the certificates that are ordered from an ACME authority."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from .acme.layout import Layout
from .config import Settings, acme_packages_fault, acme_port_fault
from .listening.endpoint_faults import EndpointError, as_endpoint_error
from .listening.endpoints import own_place, taken_apart
from .ops.writable import is_writable
from .upstream.trust import file_faults


def acme_faults(settings: Settings, redirects: bool, unread: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Why no certificate could be ordered: keys, and what is wrong. `redirects`: whether there is a redirect port;
    `unread` are keys of a file with faults that have their defaults here (`PartialSettings`)."""
    if settings.acme.directory is None and "acme.directory" not in unread:
        return
    for each in file_faults(settings.acme.ca, None, None):
        yield "acme.ca", each
    fault = acme_port_fault(settings.acme, redirects)
    if fault is not None:
        yield "acme.challenge", fault
    for folder in Layout.below(settings.state.dir).folders:
        if folder.exists() and not (folder.is_dir() and is_writable(folder)):
            yield "state.dir", f"{folder} cannot be written; let the gateway's user write there"


def acme_warnings(settings: Settings, ports: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What keeps certificates from being ordered or served, although the gateway serves."""
    if settings.acme.directory is None:
        return
    missing = acme_packages_fault()
    if missing is not None:
        yield "acme.directory", f"{missing}; until then none is ordered"
    if ports and not any(map(_shows_issued, ports)):
        none = "no port of listen.port shows certificates that are ordered"
        yield "acme.directory", f'{none}; write one without certificates of its own, as in "ssl:443"'


def _shows_issued(text: str) -> bool:
    """Whether an endpoint serves the shared certificates; also of one that cannot be read, whose fault is told."""
    try:
        with as_endpoint_error(text):
            _, _, arguments = taken_apart(text)
            return arguments is not None and own_place(arguments) is None
    except EndpointError:
        return True
