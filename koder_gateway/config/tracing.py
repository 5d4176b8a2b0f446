"""`[tracing]`: where spans go, as whose, and of which exchanges."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from .faults import Located, ReadError, reason, shown
from .kinds import Kind, Where, listing, matching, optional, parsed, refined, whole, wrong_type
from .shapes import pattern
from .tables import setting
from .values import DEADLINE, FILE, is_host

_EXAMPLE: Final = 'write one as in "http://127.0.0.1:4318"'
# Where OTLP over HTTP takes spans (OTLP specification, "OTLP/HTTP Request").
_PATH: Final = "/v1/traces"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
# What a request to the collector has of its own.
_OWN: Final = frozenset(
    ("host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "user-agent")
)
_ATTRIBUTE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}=[^\x00-\x1f\x7f]{1,1024}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_./ -]{1,128}")
# What the gateway says of itself.
_GIVEN: Final = ("service.name=", "service.version=", "service.instance.id=")
# A file of headers is that of a few credentials.
_LONGEST: Final = 16384
_LONGEST_WAIT: Final = 60.0
_NEEDED: Final = "opentelemetry.proto"


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers of every request to the collector, and the file that has them."""

    path: Path = field(compare=False)
    pairs: tuple[tuple[str, str], ...] = field(repr=False)


def _parse_endpoint(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"is not the URL of a collector; {_EXAMPLE}")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(f"is not the URL of a collector; {_EXAMPLE}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError(f"is neither http nor https: spans go out by OTLP over HTTP; {_EXAMPLE}")
    if "@" in parts.netloc:
        raise ValueError("has a user or a password in it; write an Authorization header into headers_file")
    if not host or port == 0 or not is_host(host, bracketed="[" in parts.netloc):
        raise ValueError(f"has no usable host; {_EXAMPLE}")
    if "?" in text or "#" in text:
        raise ValueError("has a query or a fragment; write what the collector needs into headers_file")
    path = parts.path if parts.path not in ("", "/") else _PATH
    return f"{parts.scheme.lower()}://{parts.netloc.lower().removesuffix(':')}{path}"


def _read_endpoint(value: object, where: Where) -> str:
    url = _URL.read(value, where)
    try:
        found = importlib.util.find_spec(_NEEDED)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ReadError.because(
            'needs packages of OpenTelemetry that are not installed; install koder-gateway[tracing], or write ""'
        )
    return url


def _read_part(value: object, where: Where) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(value, "a number; write one from 0 to 1, as in 0.01")
    # Not a number fails here, too.
    if not 0 <= value <= 1:
        raise ReadError.because(
            f"{shown(value)} is out of range; write a part from 0 to 1, as in 0.01 for one in 100"
        )
    return float(value)


def _read_headers(value: object, where: Where) -> Headers:
    path = FILE.read(value, where)
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        text = content.decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        fault = reason(error) if isinstance(error, OSError) else "is not text in ASCII"
        raise ReadError.because(f"{shown(value)}: {fault}; write a line NAME: VALUE for each header") from None
    if len(content) > _LONGEST:
        raise ReadError.because(f"{shown(value)}: has more than {_LONGEST} bytes; write the headers alone")
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, said = line.partition(":")
        said = said.strip()
        # What is wrong is not shown: it may be a secret.
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(said):
            raise ReadError.because(f"{shown(value)}: line {number} is not a header; write NAME: VALUE")
        if name.lower() in _OWN:
            raise ReadError.because(f"{shown(value)}: line {number}: {name} is set by the gateway; leave it out")
        pairs.append((name, said))
    return Headers(path, tuple(pairs))


def _attribute_fault(text: str) -> str | None:
    if not _ATTRIBUTE.fullmatch(text):
        return 'is not an attribute; write its name, = and its value, as in "deployment.environment.name=production"'
    if text.startswith(_GIVEN):
        name = text.partition("=")[0]
        return "is not needed; write service_name" if name == "service.name" else "is the gateway's own; leave it out"
    return None


def _service_fault(text: str) -> str | None:
    if _SERVICE.fullmatch(text):
        return None
    return "is not the name of a service; write 1 to 128 letters, digits, spaces and ._/-"


_URL: Final = parsed("URL", _parse_endpoint, lambda value: f"{shown(value)} is not a string; {_EXAMPLE}")
COLLECTOR: Final[Kind[str]] = Kind("URL", _read_endpoint, shape=pattern("[Hh][Tt][Tt][Pp][Ss]?://.+"))
PART: Final[Kind[float]] = Kind("number", _read_part, shape={"type": "number", "minimum": 0, "maximum": 1})
HEADERS: Final[Kind[Headers]] = Kind("file", _read_headers, shape=FILE.shape, located=True)
ATTRIBUTE: Final = matching("attribute", _attribute_fault)
SERVICE_NAME: Final = matching("name", _service_fault)
COLLECTOR_TIMEOUT: Final = refined(
    DEADLINE, lambda seconds: seconds <= _LONGEST_WAIT, 'is too long to wait for a collector; write at most "60s"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """[tracing]: where spans go, None for nowhere. `sample` is the part of the traces (0 to 1), `client_traces` how
    many a second are sampled that untrusted clients have begun. `ca` None: the system's authorities."""

    endpoint: str | None = setting(
        optional(COLLECTOR),
        "",
        about="The OpenTelemetry collector that gets [spans](operations.md#tracing), by OTLP over HTTP: `http://` or "
        '`https://`, host and port. Without a path it is asked at `/v1/traces`. `""`: no spans. Needs '
        "`koder-gateway[tracing]`, which the Debian package has.",
    )
    sample: float = setting(
        PART,
        0.01,
        about="The part of the traces that is recorded, 0 to 1. It goes by the trace's id, so that services with the "
        "same part record the same traces.",
    )
    client_traces: int = setting(
        whole(0, 100_000),
        10,
        about="How many traces a second, of each worker, are recorded that clients have begun, trusted proxies apart "
        "(they could ask for any number).",
    )
    headers_file: Headers | None = setting(
        optional(HEADERS),
        "",
        about="A file with headers for the collector, a line `NAME: VALUE` for each, such as its credential; lines "
        'with `#` are comments. `""`: none.',
    )
    ca: Path | None = setting(
        optional(FILE),
        "",
        about="The authorities, in PEM, that may have issued the collector's certificate; `\"\"`: the system's.",
    )
    timeout: float = setting(
        COLLECTOR_TIMEOUT,
        "10s",
        about="How long one request to the collector may take, at most a minute. No client waits for it.",
    )
    service_name: str = setting(SERVICE_NAME, "koder-gateway", about="`service.name` of the spans.")
    resource: tuple[str, ...] = setting(
        listing(ATTRIBUTE),
        [],
        about="Further attributes of their resource, each `NAME=VALUE`, such as "
        '`"deployment.environment.name=production"`.',
    )


def checked(section: TracingSettings) -> TracingSettings:
    """The section, if its keys belong together. Raises ReadError."""
    faults: list[Located] = []
    if section.ca is not None and not (section.endpoint or "").startswith("https:"):
        faults.append((".ca", 'has no effect without TLS; write an endpoint with "https://", or leave it out'))
    if section.headers_file is not None and section.endpoint is None:
        faults.append((".headers_file", "has no effect without an endpoint; write that too, or leave it out"))
    if faults:
        raise ReadError(faults)
    return section
