"""Endpoint strings taken apart, checked and put together again; what they mean is decided in `endpoints`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from twisted.internet.endpoints import quoteStringArgument

# Twisted's own default of 50 overflows in a second of reconnecting clients; the kernel cuts this to its
# limit.
BACKLOG = 4096
# Where Twisted's parsers take the backlog, counted in positional arguments: named twice would be an error.
_BACKLOG_POSITION = {"tcp": 2, "tcp6": 1, "unix": 2}
# What `ssl:` takes, in the order of Twisted's own parser.
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

# Which of them are about certificates: `tls+KIND:` takes these besides what its kind takes.
_TLS_ARGUMENTS = frozenset(("certificates", "privateKey", "certKey", "extraCertChain", "sslmethod", "dhParameters"))


@dataclass(frozen=True, slots=True)
class Description:
    """An endpoint string taken apart."""

    kind: str
    arguments: tuple[str, ...]
    options: dict[str, str]

    def text(self) -> str:
        """The string again."""
        named = [f"{name}={quoteStringArgument(value)}" for name, value in self.options.items()]
        return ":".join([self.kind, *map(quoteStringArgument, self.arguments), *named])


def parse(text: str) -> Description:
    """Take a string apart: `:` parts arguments, `=` ends a name, a backslash keeps what follows it."""
    parts: list[list[str]] = [[""]]
    characters = iter(text)
    for character in characters:
        if character == ":":
            parts.append([""])
        elif character == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        else:
            parts[-1][-1] += next(characters, "") if character == "\\" else character
    kind, *positional = [part[0] for part in parts if len(part) == 1] or [""]
    return Description(kind.lower(), tuple(positional), {part[0]: part[1] for part in parts if len(part) == 2})


def with_backlog(description: Description) -> Description:
    """The same endpoint with the gateway's backlog where it names none and takes one; its port is checked."""
    kind, arguments, options = description.kind, description.arguments, description.options
    position = _BACKLOG_POSITION.get(kind)
    if position is None:
        return description
    if kind == "unix":
        if not options.get("address", arguments[0] if arguments else ""):
            raise ValueError("names no path; write it after the colon, as in unix:/run/koder-gateway.sock")
    else:
        port_number(options.get("port", arguments[0] if arguments else ""))
    if len(arguments) > position:
        return description
    return replace(description, options={"backlog": str(BACKLOG)} | options)


def ssl_arguments(description: Description) -> dict[str, str]:
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


def carried(description: Description) -> tuple[Description, dict[str, str]]:
    """What a `tls+KIND:` endpoint puts TLS over, and the arguments of TLS by name. Raises ValueError."""
    kind = description.kind.removeprefix("tls+")
    if kind in ("ssl", "tls", "haproxy") or kind.startswith("tls+"):
        raise ValueError(
            "tls+ goes before what carries plain HTTP; write tls+systemd:..., tls+unix:PATH or tls+tcp:PORT,"
            " and haproxy: before all of it"
        )
    mine = {name: value for name, value in description.options.items() if name in _TLS_ARGUMENTS}
    rest = {name: value for name, value in description.options.items() if name not in _TLS_ARGUMENTS}
    return Description(kind, description.arguments, rest), mine


def port_number(text: str) -> int:
    if not text:
        raise ValueError("names no port; write it after the colon, as in ssl:443")
    return bounded("port", text, 1 << 16)


def bounded(name: str, text: str, bound: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= bound:
        raise ValueError(f'{name} "{text}" is no number from 0 to {bound - 1}; correct it')
    return int(text)
