"""Endpoint strings parsed, checked and put together again; `endpoints` decides what they mean."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import takewhile

from twisted.internet.endpoints import quoteStringArgument

# Twisted's own default of 50 overflows in a second of reconnecting clients; the kernel cuts this to its
# limit.
BACKLOG = 4096
_PATH_BYTES = 107
# The position of the backlog among the positional arguments of Twisted's parsers: giving it twice would be an error.
_BACKLOG_POSITION = {"tcp": 2, "tcp6": 1, "unix": 2}
# The arguments of `ssl:`, in the order of Twisted's own parser.
_SSL_ARGUMENTS = (
    "port",
    "privateKey",
    "certKey",
    "sslmethod",
    "interface",
    "backlog",
    "extraCertChain",
    "dhParameters",
)

# Those of them that are about certificates: `tls+KIND:` takes these in addition to the arguments of its kind.
_TLS_ARGUMENTS = frozenset(("certificates", "privateKey", "certKey", "extraCertChain", "sslmethod", "dhParameters"))
# The names of positional arguments, in the order of Twisted's parsers.
_POSITIONAL = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog"),
    "systemd": ("domain", "index", "name"),
}


@dataclass(frozen=True, slots=True)
class EndpointString:
    """A parsed endpoint string."""

    kind: str
    arguments: tuple[str, ...]
    options: dict[str, str]

    def text(self) -> str:
        """The string again."""
        named = [f"{name}={quoteStringArgument(value)}" for name, value in self.options.items()]
        return ":".join([self.kind, *map(quoteStringArgument, self.arguments), *named])


# An address and a port without a kind, or with a scheme.
_SHORT = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.%]+\]|[0-9.]*):([0-9]+)", re.IGNORECASE)


def expand_shorthand(text: str, secure: bool = True) -> str:
    """The endpoint string for `:443`, `[::]:443`, `0.0.0.0:443` or `http://:8080`; any other string unchanged.
    Without a scheme it is TLS if `secure`."""
    match = _SHORT.fullmatch(text)
    if match is None:
        return text
    scheme, host, port = match.groups()
    kind = "ssl" if (scheme.lower() == "https" if scheme else secure) else "tcp"
    return f"{kind}:{port}" + (f":interface={quoteStringArgument(host.strip('[]'))}" if host else "")


def parse(text: str) -> EndpointString:
    """Parse a string: `:` separates arguments, `=` ends a name, a backslash escapes the next character.

    Raises ValueError for an interface with unescaped colons.
    """
    parts: list[list[str]] = [[""]]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append([""])
        elif character == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += next(characters, "") if character == "\\" else character
    _check_interface(parts)
    kind, *positional = [part[0] for part in parts if len(part) == 1] or [""]
    return EndpointString(kind.lower(), tuple(positional), {part[0]: part[1] for part in parts if len(part) == 2})


def _check_interface(parts: list[list[str]]) -> None:
    """Refuse an IPv6 address with bare colons after `interface=`.

    Twisted would take its first part for the interface (an empty one means every interface) and the rest for
    positional arguments. Where the address ends cannot be known (`interface=::1:50`), so the gateway does not guess.
    Raises ValueError.
    """
    for index, part in enumerate(parts):
        if part[0] != "interface" or len(part) != 2 or _is_inet6(part[1]):
            continue
        behind = parts[index + 1 :]
        run = [part[1], *(each[0] for each in takewhile(lambda each: len(each) == 1, behind))]
        pieces = next((run[:end] for end in range(len(run), 1, -1) if _is_inet6(":".join(run[:end]))), None)
        if pieces is None and not part[1] and len(run) > 1 and not run[1]:
            pieces = run
        if pieces is not None:
            plain = ":".join(pieces).strip("[]")
            escaped = plain.replace(":", "\\:")
            raise ValueError(
                f"interface={':'.join(pieces)} ends at its first colon; write interface={escaped}, and in TOML or a"
                " shell the whole string within single quotes"
            )


def _is_inet6(text: str) -> bool:
    try:
        return ip_address(text.removeprefix("[").removesuffix("]")).version == 6
    except ValueError:
        return False


def with_backlog(description: EndpointString) -> EndpointString:
    """The same endpoint with the gateway's backlog if it names none and accepts one; its port is validated."""
    kind, arguments, options = description.kind, description.arguments, description.options
    position = _BACKLOG_POSITION.get(kind)
    if position is None:
        return description
    if kind == "unix":
        _check_socket(options.get("address", arguments[0] if arguments else ""))
    else:
        port_number(options.get("port", arguments[0] if arguments else ""))
    if len(arguments) > position:
        return description
    return replace(description, options={"backlog": str(BACKLOG)} | options)


def _check_socket(path: str) -> None:
    """Check that this process can create a UNIX socket there. Raises ValueError."""
    if not path:
        raise ValueError("names no path; write it after the colon, as in unix:/run/koder-gateway.sock")
    # sun_path has 108 bytes and ends in a NUL (unix(7)).
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise ValueError(f"its path is longer than the {_PATH_BYTES} bytes that a socket's may have; shorten it")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is not a folder; create it, or name a path in one that exists")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be written; let the gateway's user write there, or name another folder")
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ValueError(f"{path} exists and is not a socket; name another path, or remove it")


def ssl_arguments(description: EndpointString) -> dict[str, str]:
    """The arguments of `ssl:` or `tls:` by name. Raises ValueError."""
    positional = list(description.arguments)
    arguments = dict(description.options)
    if description.kind == "tls" and positional and not positional[0].isdecimal():
        arguments["certificates"] = positional.pop(0)
        positional = positional or ["443"]
    if len(positional) > len(_SSL_ARGUMENTS):
        raise ValueError("too many arguments; write ssl:PORT, ssl:PORT:interface=ADDRESS and so on")
    arguments = dict(zip(_SSL_ARGUMENTS, positional, strict=False)) | arguments
    unknown = sorted(arguments.keys() - {*_SSL_ARGUMENTS, "certificates"})
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}; known are {', '.join(_SSL_ARGUMENTS)}")
    return arguments


def without_tls(description: EndpointString) -> tuple[EndpointString, dict[str, str]]:
    """The plain endpoint of a `tls+KIND:` endpoint, and the arguments of TLS by name. Raises ValueError."""
    kind = description.kind.removeprefix("tls+")
    if kind in ("ssl", "tls", "haproxy") or kind.startswith("tls+"):
        raise ValueError(
            "tls+ must precede a plain endpoint; write tls+systemd:..., tls+unix:PATH or"
            " tls+tcp:PORT, with haproxy: before all of it"
        )
    mine = {name: value for name, value in description.options.items() if name in _TLS_ARGUMENTS}
    rest = {name: value for name, value in description.options.items() if name not in _TLS_ARGUMENTS}
    return EndpointString(kind, description.arguments, rest), mine


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """What an endpoint listens on: `kind` is "tcp" with an interface ("" for all) and a port, "unix" with a path, or
    "systemd" with what identifies its socket."""

    kind: str
    host: str
    port: str

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every address of the machine."""
        return self.kind == "tcp" and self.host in _EVERYWHERE

    def clashes(self, other: ListenAddress) -> bool:
        """Whether only one of the two can be bound."""
        if (self.kind, self.port) != (other.kind, other.port) or (self.kind, self.port) == ("tcp", "0"):
            return False
        return self.host == other.host or (self.kind == "tcp" and (self.everywhere or other.everywhere))


_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (to compare)


def address_of(text: str) -> ListenAddress | None:
    """What an endpoint string listens on, as far as the string says."""
    description = parse(expand_shorthand(text))
    if description.kind == "haproxy":
        description = parse(expand_shorthand(text.partition(":")[2]))
    if description.kind in ("ssl", "tls"):
        arguments = ssl_arguments(description)
        return ListenAddress(
            "tcp", _plain_host(arguments.get("interface", "")), _plain_number(arguments.get("port", ""))
        )
    if description.kind.startswith("tls+"):
        description = without_tls(description)[0]
    named = (
        dict(zip(_POSITIONAL.get(description.kind, ()), description.arguments, strict=False)) | description.options
    )
    if description.kind in ("tcp", "tcp6"):
        host = named.get("interface", "" if description.kind == "tcp" else "::")
        return ListenAddress("tcp", _plain_host(host), _plain_number(named.get("port", "")))
    if description.kind == "unix":
        return ListenAddress("unix", "", _plain_path(named.get("address", "")))
    if description.kind == "systemd":
        return ListenAddress(
            "systemd", "", _plain_number(named["index"]) if "index" in named else named.get("name", "")
        )
    return None


def _plain_host(text: str) -> str:
    """An address in the form in which addresses are compared; IPv4 within IPv6 becomes IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return text.lower()
    return str(getattr(address, "ipv4_mapped", None) or address)


def _plain_number(text: str) -> str:
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) <= 10 else text


def _plain_path(path: str) -> str:
    """The canonical path of a socket."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)


def bare_port(description: EndpointString) -> tuple[int, int] | None:
    """Port and backlog of a `tcp:` endpoint that names no interface; None for any other. Raises ValueError."""
    named = dict(zip(_POSITIONAL["tcp"], description.arguments, strict=False)) | description.options
    if description.kind != "tcp" or named.get("interface") or named.keys() - set(_POSITIONAL["tcp"]):
        return None
    return port_number(named.get("port", "")), bounded("backlog", named.get("backlog", str(BACKLOG)), 1 << 31)


def check_inherited(description: EndpointString) -> None:
    """Check that a `systemd:` endpoint says which socket it means. Raises ValueError."""
    named = dict(zip(_POSITIONAL["systemd"], description.arguments, strict=False)) | description.options
    if named.get("domain") not in ("INET", "INET6", "UNIX"):
        raise ValueError("has no socket domain; write domain=INET, domain=INET6 or domain=UNIX")
    if ("index" in named) is ("name" in named):
        raise ValueError(
            "does not say which socket; write index=0 for the first, or name=NAME with its FileDescriptorName"
        )
    if not named.get("index", "0").isdecimal():
        raise ValueError(f'index "{named["index"]}" is not a number; write index=0 for the first')


def port_number(text: str) -> int:
    if not text:
        raise ValueError("names no port; write it after the colon, as in ssl:443")
    return bounded("port", text, 1 << 16)


def bounded(name: str, text: str, bound: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= bound:
        raise ValueError(f'{name} "{text}" is not a number from 0 to {bound - 1}; correct it')
    return int(text)
