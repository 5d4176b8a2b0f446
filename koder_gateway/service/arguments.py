"""Validates the arguments of an embedded `Gateway` before anything is made from them: one line for each fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from twisted.web.resource import IResource

from ..config import Settings
from ..config.faults import shown
from ..config.values import prefix_fault
from ..policy.routing import normal_path
from .dependencies import check_dependencies


def check_settings(settings: object) -> None:
    """Raise TypeError for anything but the result of `load`, and ValueError, with a line for each, where a package
    that the gateway is built on is not as it has to be."""
    check_dependencies()
    if not isinstance(settings, Settings):
        path = settings if isinstance(settings, str) else "koder-gateway.toml"
        raise TypeError(f"settings: {_named(settings)} is not a Settings object; write load({path!r})")


def read_port(name: str, given: object) -> str:
    """The endpoint string of an argument that takes one, "" for none. Raises TypeError."""
    if not isinstance(given, str):
        example = f'{name}="tcp:9100:interface=127.0.0.1"'
        raise TypeError(f"{name}: {_named(given)} is not an endpoint string; write one, as in {example}")
    return given


def read_ports(name: str, given: object) -> tuple[str, ...]:
    """The endpoint strings of an argument that takes several. Raises TypeError."""
    if isinstance(given, str):
        raise TypeError(f"{name} takes a list; write {name}=[{given!r}]")
    example = f'{name}=["tcp:8080"]' if name == "redirect_ports" else f'{name}=["ssl:443"]'
    if isinstance(given, (bytes, bytearray, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{name}: {_named(given)} is not a list of endpoint strings; write one, as in {example}")
    ports = tuple(given)
    faults = [
        f"{name}: {_named(port)} is not an endpoint string; write strings, as in {example}"
        for port in ports
        if not isinstance(port, str)
    ]
    if faults:
        raise TypeError("\n".join(faults))
    return ports


def read_mounts(given: object) -> dict[bytes, Any]:
    """The resources by path. Raises ValueError for a path that no request can have, and TypeError for what is no path
    or no resource."""
    if not isinstance(given, Mapping):
        raise TypeError(f'mounts: {_named(given)} is not a dict of resources; write one, as in {{"/hello": Hello()}}')
    kinds = [
        fault for path, resource in given.items() for fault in (_key_fault(path), _resource_fault(resource)) if fault
    ]
    if kinds:
        raise TypeError("\n".join(f"mounts: {fault}" for fault in kinds))
    faults = [f"mounts: {shown(path)} {fault}" for path in given if (fault := prefix_fault(path))]
    faults += _one_path_twice(path for path in given if not prefix_fault(path))
    if faults:
        raise ValueError("\n".join(faults))
    return {path.encode("ascii"): resource for path, resource in given.items()}


def _one_path_twice(paths: Iterable[str]) -> Iterator[str]:
    """Paths that are other spellings of an earlier one: requests cannot distinguish them."""
    first: dict[bytes, str] = {}
    for path in paths:
        earlier = first.setdefault(normal_path(path.encode("ascii")), path)
        if earlier is not path:
            yield f"mounts: {shown(path)} is the same path as {shown(earlier)}; write another, or leave one out"


def _key_fault(path: object) -> str | None:
    if isinstance(path, str):
        return None
    meant = shown(bytes(path).decode("latin-1")) if isinstance(path, (bytes, bytearray)) else '"/hello"'
    return f"{_named(path)} is not a path; write a string, as in {meant}"


def _resource_fault(resource: object) -> str | None:
    if isinstance(resource, type):
        return f"{resource.__name__} is a class; write an instance of it, {resource.__name__}()"
    if IResource.providedBy(resource):
        return None
    return f"{_named(resource)} is not a resource; write an instance of a class that derives from Resource"


def _named(value: object) -> str:
    """A value in the middle of a line: itself if that is short, else its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    plain = value is None or isinstance(value, (str, bytes, bool, int, float))
    text = repr(value) if plain else ""
    return text if 0 < len(text) <= 40 else f"{type(value).__name__}"
