"""The kinds of values of the gateway's keys: names, addresses, paths, durations, sizes."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..errors import METHODS
from ..policy.clients import UNIX
from ..policy.cors import origin_fault
from ..policy.tenants import is_slug
from ..wire.target import LONGEST_PREFIX, path_fault
from .credentials import PREFIX, credential_path
from .faults import ReadError, nearest, reason, shown, without_secrets
from .kinds import Kind, T, Where, matching, parsed, read_text, refined, whole, wrong_type
from .lookalikes import invisible_fault
from .shapes import BOOLEAN as TRUE_OR_FALSE
from .shapes import SOME_TEXT, TEXT, ZERO, Shape, either, integer, pattern, words
from .units import MAX_DURATION, MAX_SIZE, parse_duration, parse_percent, parse_size

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ENDPOINT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*:.+|(?:\[[0-9A-Fa-f:.%]+\]|[0-9.]*):[0-9]+", re.DOTALL)
# Fields that the gateway itself reads or sets: a tenant in one of them would be two things at once.


def _read_boolean(value: object, where: Where) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(value, "a boolean; write true or false")
    return value


def _slug_fault(text: str) -> str | None:
    if text.isascii() and is_slug(text.encode()):
        return None
    return "is not a slug; write 1 to 63 of a-z, 0-9 and -, with no - at either end"


def _parse_domain(text: str) -> str:
    """A domain name in lower case; names are not case-sensitive (RFC 4343)."""
    if not text.isascii():
        raise ValueError(_in_ascii(text))
    name = text.lower()
    if name.endswith("."):
        raise ValueError(f"ends in a dot; write {shown(name.rstrip('.'))}")
    if _is_address(name) or name.rpartition(".")[2].isdigit():
        raise ValueError('is an address, not a domain name; write a name, as in "id.example.com"')
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(
            'is not a domain name; write labels of letters, digits and - with dots, as in "id.example.com"'
        )
    return name


def _in_ascii(text: str) -> str:
    try:
        return f"is not ASCII, as a Host header must be; write {shown(text.encode('idna').decode())}"
    except UnicodeError:
        return 'is not a domain name; write one in ASCII, as in "id.example.com"'


def _is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _method_fault(text: str) -> str | None:
    names = [method.decode() for method in METHODS]
    if text in names:
        return None
    return f"is not a method that the gateway forwards; {nearest(text.upper(), names)}"


def _name_fault(text: str) -> str | None:
    if _NAME.fullmatch(text):
        return None
    return "is not a name; write 1 to 64 letters, digits, _, . or -, a letter or digit first"


def prefix_fault(text: str) -> str | None:
    """Why a path cannot be that of a route, as the middle of a message; None if it can."""
    wrong = path_fault(text.encode("utf-8", "surrogatepass"))
    if wrong is None and "?" in text:
        wrong = "The path has a query; leave it out."
    if wrong is None and len(text) > LONGEST_PREFIX:
        return f"is longer than {LONGEST_PREFIX} characters; write a shorter path"
    # Such a request is refused before routing, so the key would have no effect.
    return wrong and f'can match no request ({wrong.rstrip(".")}); write a path as in "/v1/users"'


def self_explaining(name: str, parse: Callable[[str], T], *, shape: Shape = TEXT) -> Kind[T]:
    """A string for a parser whose messages are whole sentences and quote the text themselves."""

    def read(value: object, where: Where) -> T:
        text = read_text(value)
        # Such a sentence would break into two lines, and nothing that is parsed like this has these characters.
        if not (text.isascii() and text.isprintable()):
            wrong = invisible_fault(text) or f"has characters that no {name} has; write printable ASCII"
            raise ReadError.because(f"{shown(text)} {wrong}")
        if without_secrets(text) != text:
            raise ReadError.because(f"{shown(text)} has a user or a query in it, which no {name} has; leave that out")
        try:
            return parse(text)
        except ValueError as error:
            raise ReadError.because(str(error)) from None

    return Kind(name, read, shape=shape)


def _parse_origin(text: str) -> str:
    wrong = origin_fault(text)
    if wrong is not None:
        raise ValueError(wrong)
    return text


def _parse_network(text: str) -> str:
    if text == UNIX:
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        right = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError('is not a network; write an address and a prefix length, as in "10.0.0.0/8"') from None
    raise ValueError(f'has bits set beyond its prefix; write "{right}"')


def _endpoint(usual: str) -> Kind[str]:
    """A server endpoint by its form; Twisted's plugins know which kinds there are. `usual` is the one to suggest."""
    scheme = usual.partition(":")[0]

    def parse(text: str) -> str:
        if _ENDPOINT.fullmatch(text) and text.isprintable():
            return text
        right = f"{scheme}:{text}" if re.fullmatch("[0-9]{1,5}", text) else usual
        raise ValueError(f'is not a Twisted server endpoint; write a kind and its arguments, as in "{right}"')

    def bare(value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            return f'{value} is a bare port; write a Twisted server endpoint, as in "{scheme}:{value}"'
        return None

    return parsed("endpoint", parse, bare, shape=pattern(_ENDPOINT.pattern))


def _parse_url(text: str) -> str:
    """A service's address: `http://` or `https://` with a host and an optional port, or `unix:` with a path."""
    if text.startswith("unix:"):
        return parse_unix(text)
    example = 'write one as in "http://127.0.0.1:4001"'
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"is not an address; {example}")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(f"is not an address; {example}") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"is neither http, https nor unix; {example}")
    if "@" in parts.netloc:
        raise ValueError(f"has a user in it, which the gateway does not send; {example}")
    if not host or port == 0 or not is_host(host, bracketed="[" in parts.netloc):
        raise ValueError(f"has no usable host; {example}")
    plain = f"{scheme}://{parts.netloc.lower().removesuffix(':')}"
    if parts.path or "?" in text or "#" in text:
        raise ValueError(f'has something after the host, but services get the client\'s own path; write "{plain}"')
    return plain


def is_host(host: str, bracketed: bool) -> bool:
    """Whether it is an address or a name of DNS; `bracketed`: it must be an IPv6 address."""
    if bracketed:
        return _is_address(host) and ":" in host
    if _is_address(host):
        return True
    try:
        _parse_domain(host)
    except ValueError:
        return False
    return True


def parse_unix(text: str) -> str:
    """`unix:` and the absolute path of a socket. Raises ValueError."""
    path = text.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/") or path.startswith("//") or not path.isprintable() or path.endswith("/"):
        raise ValueError('is not a socket; write its absolute path, as in "unix:/run/identity.sock"')
    # sun_path has 108 bytes and ends in a NUL (unix(7)).
    if len(os.fsencode(path)) > 107:
        raise ValueError("is longer than the 107 bytes that a socket's path may have; write a shorter one")
    return f"unix:{path}"


def _resolved(value: object, where: Where) -> Path:
    text = read_text(value)
    if not text or not text.isprintable():
        raise ReadError.because(f"{shown(text)} is not a path; write one, relative to this file's folder or absolute")
    return Path(os.path.normpath(where.folder / text))


def _existing(wanted: str, is_right: Callable[[int], bool], access: int) -> Callable[[object, Where], Path]:
    def read(value: object, where: Where) -> Path:
        if isinstance(value, str) and value.startswith(PREFIX):
            path = credential_path(value, where.credentials, whole=wanted == "folder")
        else:
            path = _resolved(value, where)
        try:
            mode = path.stat().st_mode
            readable = os.access(path, access)
        except (OSError, ValueError) as error:
            raise ReadError.because(f"{shown(value)}: {reason(error)}; write the path of a {wanted}") from None
        if not is_right(mode):
            raise ReadError.because(f"{shown(value)} is not a {wanted}; write the path of one")
        if not readable:
            raise ReadError.because(f"{shown(value)}: permission denied; let the gateway's user read it")
        return path

    return read


def _read_registry(value: object, where: Where) -> Path | str:
    text = read_text(value)
    if not re.match(r"(?i)https?://", text):
        return FILE.read(value, where)
    if not (text.isascii() and text.isprintable()) or any(c in text for c in " \\#@") or not _has_host(text):
        example = '"http://127.0.0.1:4005/v1/admin/tenants"'
        raise ReadError.because(f"{shown(text)} is not the URL of a registry; write one as in {example}")
    return text


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and is_host(parts.hostname or "", "[" in parts.netloc)
    except ValueError:
        return False


def _read_state(value: object, where: Where) -> Path:
    return where.state if value == "" else _resolved(value, where)


def _read_log(value: object, where: Where) -> str:
    if value == "-":
        return "-"
    path = _resolved(value, where)
    if not os.path.isdir(path.parent):
        raise ReadError.because(
            f'{shown(value)} is in a folder that does not exist; create it, or write "-" for stdout'
        )
    if os.path.isdir(path):
        raise ReadError.because(f'{shown(value)} is a folder; write the path of a file, or "-" for stdout')
    return str(path)


def _read_age(value: object, where: Where) -> int:
    if isinstance(value, str):
        seconds = DURATION.read(value, where)
        if seconds != int(seconds):
            raise ReadError.because(f'{shown(value)} is not a number of whole seconds; write 600 or "10m"')
        return int(seconds)
    return whole(0, 86400 * 365).read(value, where)


def _host_fault(text: str) -> str | None:
    if _HOST.fullmatch(text):
        return None
    return 'is not a Host; write a name, with its port if need be, as in "id.example.com:8443"'


def _bare_duration(value: object) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_DURATION:
        return f'{shown(value)} has no unit; for seconds write "{shown(value)}s"'
    return f'{shown(value)} is not a duration; write a number and ms, s, m, h or d in quotes, as in "30s"'


def _bare_size(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SIZE:
        return f'{shown(value)} has no unit; for bytes write "{shown(value)}B"'
    return f'{shown(value)} is not a size; write a number and B, KiB, MiB or GiB in quotes, as in "10MiB"'


def _bare_percent(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100:
        return f'{shown(value)} has no %; write "{shown(value)}%"'
    return f'{shown(value)} is not a percentage; write a whole number and % in quotes, as in "25%"'


def _parse_share(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", text)
    if match is None or float(match[1]) > 100:
        raise ValueError('is not a percentage from 0% to 100%; write one, as in "10%"')
    return float(match[1]) / 100


def _or_zero(kind: Kind[T], zero: T) -> Kind[T]:
    def read(value: object, where: Where) -> T:
        bare_zero = isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0
        return zero if bare_zero else kind.read(value, where)

    return Kind(kind.name, read, shape=either(kind.scalar, ZERO))


# Which of the quantities that match have a value of more than 0.
_POSITIVE: Final = "(?=.*[1-9])"
_UNITS_OF_TIME: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d)"
_UNITS_OF_SIZE: Final = r"[0-9]{1,15}(?:\.[0-9]{1,9})?(?:B|[KMGT]iB)"
_NOTHING: Final = r"0{1,15}(?:\.0{1,9})?"

BOOLEAN: Final = Kind("boolean", _read_boolean, shape=TRUE_OR_FALSE)
DURATION: Final = _or_zero(
    parsed("duration", parse_duration, _bare_duration, shape=pattern(f"{_UNITS_OF_TIME}|{_NOTHING}")), 0.0
)
# A timeout of zero would refuse every request.
DEADLINE: Final = refined(
    DURATION,
    lambda seconds: seconds > 0,
    'is too short; write at least "1ms"',
    shape=pattern(_POSITIVE + _UNITS_OF_TIME),
)
SIZE: Final = _or_zero(parsed("size", parse_size, _bare_size, shape=pattern(f"{_UNITS_OF_SIZE}|{_NOTHING}")), 0)
PERCENT: Final = parsed(
    "percentage", parse_percent, _bare_percent, shape=pattern("(?:0{0,2}[1-9]|0?[1-9][0-9]|100)%")
)
LIMIT: Final = refined(
    SIZE,
    lambda size: size > 0,
    'would refuse everything; write at least "1B"',
    shape=pattern(_POSITIVE + _UNITS_OF_SIZE),
)
# The data that waits for a single client may be almost this much.
BUFFER: Final = refined(
    SIZE,
    lambda size: size >= 1 << 20,
    'is too small; write at least "1MiB"',
    shape=pattern(_POSITIVE + _UNITS_OF_SIZE),
)
SHARE: Final = parsed("percentage", _parse_share, shape=pattern(r"[0-9]{1,3}(?:\.[0-9]{1,6})?%"))
AGE: Final = Kind("seconds", _read_age, shape=either(integer(0, 86400 * 365), DURATION.scalar))
SLUG: Final = matching("slug", _slug_fault, shape=pattern("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"))
DOMAIN: Final = parsed("domain", _parse_domain, shape=pattern("[A-Za-z0-9_.-]{1,253}"))
HOST: Final = matching("host", _host_fault, shape=pattern(_HOST.pattern))
METHOD: Final = matching("method", _method_fault, shape=words(*(method.decode() for method in METHODS)))
NAME: Final = matching("name", _name_fault, shape=pattern(_NAME.pattern))
PATH_PREFIX: Final = matching("path", prefix_fault, shape={**pattern("/.*"), "maxLength": LONGEST_PREFIX})
ORIGIN: Final = self_explaining("origin", _parse_origin, shape=pattern("[a-z][a-z0-9+.-]*://[^/].*"))
NETWORK: Final = parsed("network", _parse_network, shape=pattern("unix:|[0-9A-Fa-f:.]+(?:/[0-9.]+)?"))
ENDPOINT: Final = _endpoint("ssl:443")
PLAIN_ENDPOINT: Final = _endpoint("tcp:80")
SERVICE_URL: Final = parsed("URL", _parse_url, shape=pattern("(?:[Hh][Tt][Tt][Pp][Ss]?://|unix:/).+"))
FILE: Final = Kind("file", _existing("file", stat.S_ISREG, os.R_OK), shape=SOME_TEXT, located=True)
FOLDER: Final = Kind("folder", _existing("folder", stat.S_ISDIR, os.R_OK | os.X_OK), shape=SOME_TEXT, located=True)
REGISTRY: Final = Kind("file or URL", _read_registry, shape=SOME_TEXT, located=True)
STATE: Final = Kind("folder", _read_state, located=True)
LOG: Final = Kind('file or "-"', _read_log, shape=SOME_TEXT, located=True)
