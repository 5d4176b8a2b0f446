"""The checks of `koder-gateway check` beyond the file: endpoints, certificates, folders, the systemd unit."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# A bare memory reactor, to keep a check from listening on anything; these modules need none of their own.
from twisted.internet.testing import MemoryReactor

from .acme_checks import acme_faults, acme_warnings
from .config import DEFAULT_PATH, Settings, load_partially, misspelled_services, warning_lines
from .config.environment import PREFIX
from .config.faults import step
from .config.origins import Origins
from .listening.admin_ports import examine_admin
from .listening.endpoint_faults import EndpointError
from .listening.endpoint_strings import ListenAddress, address_of
from .listening.endpoints import Endpoints
from .listening.listeners import UNREADABLE, plain_endpoint, unparsable
from .machine import descriptors, is_local
from .ops.access_log import log_fault
from .ops.writable import is_writable
from .service.dependencies import degradations
from .service_unit import UNIT_FOLDERS, state_directory, stop_timeout
from .tree.bounds import descriptor_warnings
from .tree.compose import certificate_warnings, compose
from .upstream.trust import file_faults
from .wire.clock import CoarseClock

# The user of the packaged unit, and the folder with that user's files.
SERVICE_USER: Final = "koder-gateway"
SERVICE_FOLDER: Final = DEFAULT_PATH.parent
# Colons separate the arguments of an endpoint string, so each colon of an IPv6 address needs a backslash.
_LOOPBACK: Final = "add :interface=127.0.0.1, or for IPv6 :interface=\\:\\:1 (in TOML within single quotes)"


@dataclass(frozen=True, slots=True)
class CheckUser:
    """The user for whom a check is done. `environ` is the environment that decides where the state folder is; `made`
    is a folder that systemd creates for its service at each start, None for none."""

    environ: Mapping[str, str]
    made: Path | None = None


def check_as_service_user(path: Path | None, user: str = SERVICE_USER, folder: Path = SERVICE_FOLDER) -> CheckUser:
    """Switch to the service's user if root checks the service's own configuration: files that only root can read
    would look good to root, and stop the next start. For the rest of this process.

    The view is that user's, not that of root's environment: the state folder is the one of the unit, else the one in
    that user's home.
    """
    within = path is None or folder in Path(os.path.abspath(path)).parents
    if os.geteuid() != 0 or not within:
        return CheckUser(os.environ)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return CheckUser(os.environ)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    made = state_directory(UNIT_FOLDERS)
    environ = {"HOME": entry.pw_dir}
    given = os.environ.get("STATE_DIRECTORY") or made
    if given:
        environ["STATE_DIRECTORY"] = str(given)
    environ |= {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    return CheckUser(environ, made)


def settings_faults(
    settings: Settings,
    warned: list[str],
    made: Path | None = None,
    given: Mapping[str, tuple[str, ...]] | None = None,
) -> list[str]:
    """The faults of well-formed settings, each in one line.

    `warned` gets warnings: certificates that clients refuse, or soon will, and settings without effect. `made` is a
    folder that the gateway will have when it starts (`CheckUser`); `given` are endpoints of a command line, by their
    key in `[listen]`.
    """
    origins = settings.origins
    if settings.tls.client_ca is not None:
        warned += settings.tls.client_ca.warnings(time.time())
    warned += degradations()
    warned += warning_lines(settings)
    warned += [origins.line("timeouts.drain", each) for each in _drain_warnings(settings.timeouts.drain)]
    limit, whose = descriptors(UNIT_FOLDERS)
    warned += [origins.line("listen.max_connections", each) for each in descriptor_warnings(settings, limit, whose)]
    listen = settings.listen
    texts = {"port": listen.port, "redirect_port": listen.redirect_port, "admin_port": (listen.admin_port,)}
    faults = [origins.line(at, fault) for at, fault in misspelled_services(settings)]
    faults += _faults(origins, settings, made, frozenset(), texts, given or {}, warned)
    sound = not any(fault.startswith(origins.line("listen.admin_port", "")) for fault in faults)
    if listen.admin_port and sound and _everywhere(listen.admin_port):
        warned.append(origins.line("listen.admin_port", f"listens on every interface; {_LOOPBACK}"))
    return faults


def remaining_faults(
    path: Path | None, view: CheckUser | None = None, given: Mapping[str, tuple[str, ...]] | None = None
) -> list[str]:
    """The other faults of a file that has faults, as far as it can be read; `given` as for `settings_faults`."""
    view = CheckUser(os.environ) if view is None else view
    part = load_partially(path, view.environ)
    if part is None:
        return []
    origins = Origins(str(path or DEFAULT_PATH), part.settings.variables)
    faults = [origins.line(at, fault) for at, fault in part.misspelled()]
    for service, files in part.files.items():
        faults += [origins.line(f"services{step(service)}", fault) for fault in file_faults(*files)]
    return faults + _faults(origins, part.settings, view.made, part.unread, part.endpoints, given or {}, [])


def _faults(
    origins: Origins,
    settings: Settings,
    made: Path | None,
    unread: frozenset[str],
    texts: Mapping[str, tuple[str, ...]],
    given: Mapping[str, tuple[str, ...]],
    warned: list[str],
) -> list[str]:
    """The faults beyond the file, except for unreadable keys."""
    reactor: Any = MemoryReactor()
    faults: list[str] = []
    try:
        composition = compose(settings, settings.registered, reactor=reactor, clock=CoarseClock())
        faults += [f"{origins.file}: {each}" for each in certificate_warnings(composition, time.time())]
    except (OSError, ValueError) as error:
        faults += [f"{origins.file}: {each}" for each in str(error).splitlines()]
    fault = log_fault(settings.log.file) if settings.log.access else None
    if fault:
        faults.append(origins.line("log.file", fault))
    fault = None if "state.dir" in unread else _state_fault(settings.state.dir, made)
    if fault:
        faults.append(origins.line("state.dir", fault))
    ports = {**texts, **given}
    if "acme" not in unread:
        faults += [origins.line(at, each) for at, each in acme_faults(settings, any(ports["redirect_port"]), unread)]
        warned += [origins.line(at, each) for at, each in acme_warnings(settings, ports["port"])]
    endpoints = Endpoints(
        reactor, settings.tls, settings.state.dir, settings.tenants.base_domain, warned=warned.extend
    )
    faults += _endpoint_faults(origins, ports, frozenset(given), endpoints)
    if not any(ports["port"]):
        # There is no readable endpoint that would read them.
        faults += [origins.line("tls.certificates", each) for each in endpoints.certificate_faults()]
    return faults


def _endpoint_faults(
    origins: Origins, texts: Mapping[str, tuple[str, ...]], given: Collection[str], endpoints: Endpoints
) -> Iterator[str]:
    """The faults of each endpoint, with their keys; those of `given` keys are not in a file."""
    taken: dict[str, tuple[str, list[ListenAddress]]] = {}
    for key, kind in texts.items():
        for text in filter(None, kind):
            faults: list[str] = []
            try:
                if key == "admin_port":
                    _examine_admin(text, endpoints)
                else:
                    (endpoints.examine if key == "port" else endpoints.examine_plain)(text)
                faults += [*_not_here(text), *_taken_twice(key, text, taken)]
            except EndpointError as error:
                faults += str(error).splitlines()
            yield from (fault if key in given else origins.line(f"listen.{key}", fault) for fault in faults)


def _examine_admin(text: str, endpoints: Endpoints) -> None:
    try:
        examine_admin(endpoints, plain_endpoint(MemoryReactor()), text)
    except UNREADABLE as error:
        raise EndpointError(unparsable(text, error)) from None


def _not_here(text: str) -> Iterator[str]:
    address = address_of(text)
    if address is not None and address.kind == "tcp" and not address.everywhere and not is_local(address.host):
        wrong = f"{address.host} is not an address of this machine"
        yield f'endpoint "{text}": {wrong}; write an address of this machine, or leave interface out to listen on all'


def _taken_twice(key: str, text: str, taken: dict[str, tuple[str, list[ListenAddress]]]) -> Iterator[str]:
    """Whether an endpoint's address is already taken by another; else it is recorded."""
    address = address_of(text)
    if address is None:
        return
    for other, (other_key, addresses) in taken.items():
        # A repeated string in the same list is reported as such.
        if (other_key, other) != (key, text) and any(address.clashes(each) for each in addresses):
            place = f'listen.{other_key} "{other}"'
            yield f'endpoint "{text}": listens on the same address as {place}; change one, or leave one out'
            return
    taken.setdefault(text, (key, []))[1].append(address)


def _everywhere(text: str) -> bool:
    address = address_of(text)
    return address is not None and address.everywhere


def _state_fault(folder: Path, made: Path | None) -> str | None:
    """Why the state folder cannot be used; it is created when it is first needed, or by systemd."""
    there = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if not there.is_dir():
        return f"{there} is not a folder; name a folder that the gateway's user may write to"
    if made is not None and made in (folder, *folder.parents) and there in (made, *made.parents):
        # systemd creates it for the gateway at the start.
        return None
    if not is_writable(there):
        return f"{there} cannot be written; let the gateway's user write there, or name another folder"
    return None


def _drain_warnings(drain: float) -> Iterator[str]:
    allowed, where = stop_timeout(UNIT_FOLDERS)
    if drain >= allowed:
        yield (
            f"{drain:g}s is not shorter than the TimeoutStopSec of {where} ({allowed:g}s), after which systemd kills"
            " the gateway; raise that too"
        )
