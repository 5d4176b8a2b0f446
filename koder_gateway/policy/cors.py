"""CORS: the headers of a response to a browser, and the whole response to a preflight.

The rules are those of the Fetch standard, section 3.2 (HTTP CORS protocol). An origin is allowed only if it equals a
configured one byte for byte. The response names that origin, never `*`, since credentials are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

from ..errors import METHODS
from ..wire.fields import MAX_LISTED

DEFAULT_METHODS = tuple(method.decode("ascii") for method in METHODS)
DEFAULT_EXPOSE = (
    "X-Request-ID",
    "DPoP-Nonce",
    "ETag",
    "Link",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "Location",
)
DEFAULT_MAX_AGE = 600
# The methods that any page may use on a public document.
READING = (b"GET", b"HEAD")

VARY_ORIGIN = b"Vary: Origin\r\n"
_PREFLIGHT_VARY = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
_ALLOW_ORIGIN = b"Access-Control-Allow-Origin: "

# RFC 9110 section 5.6.2 (token), section 5.6.1 (list). The separators share no byte with the names, so matching is
# linear. Empty elements, which section 5.6.1.2 tells recipients to ignore, are removed first.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAMES = re.compile(_TOKEN + rb"+(?:[ \t]*+,[ \t]*+" + _TOKEN + rb"+)*+")
_MAX_REQUESTED = 8192
# Preflight responses are cached if the request has the size of a browser's.
_KEPT_REQUESTED = 512
_KEPT_ANSWERS = 1024

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_WILDCARDS = re.compile(r"https://\*\.(?P<domain>[^*:/@]+)(?::[0-9]+)?")
_WILDCARD = 'as in "https://*.app.example"'
# A single label, an address, and the usual suffixes of countries (`co.uk`): subdomains of these are others'.
_SHARED = re.compile(r"[^.]*|.*\.[0-9]+|(?:ac|co|com|edu|gov|net|ne|or|org)\.[a-z]{2}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_fault(text: str) -> str | None:
    """Why no browser sends this origin, or why it must not be allowed; None if it is acceptable.

    A correct origin is serialised (RFC 6454 section 6.2): scheme://host[:port].
    """
    if text == "null":
        return "\"null\" is every sandboxed page's origin; name the pages' real origin"
    if "*" in text:
        return _wildcard_fault(text)
    if text != text.lower():
        return f'"{text}" is not in lower case, as browsers send it; write "{text.lower()}"'
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return f'"{text}" is not an origin; write scheme://host or scheme://host:port, without a path'
    port = match["port"]
    if port is not None and int(port) > 65535:
        return f'"{text}" has a port above 65535; write a port from 1 to 65535'
    if port is not None and _DEFAULT_PORTS.get(match["scheme"]) == port:
        return f'"{text}" names its default port, which browsers omit; write "{text.removesuffix(":" + port)}"'
    return None


def _wildcard_fault(text: str) -> str | None:
    """Why this wildcard must not be allowed: it must stand for one whole label, below a domain that is somebody's."""
    if text == "*":
        return f'"*" is every page, which credentials forbid; list each origin by itself, {_WILDCARD}'
    match = _WILDCARDS.fullmatch(text)
    if match is None:
        return f'"{text}" has a wildcard that is not one whole label of an https origin; write one {_WILDCARD}'
    domain = match["domain"]
    if _SHARED.fullmatch(domain):
        return f'"{text}" covers domains that anybody can register; write a domain of your own, {_WILDCARD}'
    wrong = origin_fault(text.replace("://*.", "://a.", 1))
    return None if wrong is None else wrong.replace("://a.", "://*.")


def _line(name: bytes, values: Iterable[str]) -> bytes:
    """A finished header line with a list; empty for an empty list."""
    value = ", ".join(values).encode("ascii")
    return name + b": " + value + b"\r\n" if value else b""


class CorsPolicy:
    """The configured origins, wildcards among them, and what browsers may do from them.

    Empty `headers` allow whatever field names a preflight asks for. `max_age` is in seconds. Raises
    ValueError for an origin that `origin_fault` objects to, so that `null` can never be allowed.
    """

    __slots__ = (
        "_allow_credentials",
        "_allow_headers",
        "_allow_methods_and_age",
        "_answer_tail",
        "_answers",
        "_preflights",
        "origins",
        "public_fields",
        "wildcards",
    )

    def __init__(
        self,
        origins: Iterable[str] = (),
        *,
        methods: Sequence[str] = DEFAULT_METHODS,
        headers: Sequence[str] = (),
        expose: Sequence[str] = DEFAULT_EXPOSE,
        max_age: int = DEFAULT_MAX_AGE,
        credentials: bool = True,
    ) -> None:
        allowed = tuple(origins)
        faults = [fault for fault in map(origin_fault, allowed) if fault is not None]
        if faults:
            raise ValueError("; ".join(faults))
        self.origins = frozenset(origin.encode("ascii") for origin in allowed)
        # Whether one covers an origin the owner of the origin's host decides too: `Policy.allows`.
        self.wildcards = frozenset(origin for origin in self.origins if b"*" in origin)
        self._allow_credentials = b"Access-Control-Allow-Credentials: true\r\n" if credentials else b""
        self._allow_methods_and_age = (
            _line(b"Access-Control-Allow-Methods", methods) + b"Access-Control-Max-Age: %d\r\n" % max_age
        )
        self._allow_headers = _line(b"Access-Control-Allow-Headers", headers)
        exposed = _line(b"Access-Control-Expose-Headers", expose)
        self._answer_tail = b"\r\n" + self._allow_credentials + exposed + VARY_ORIGIN
        # For a response that any page may read, without credentials: with credentials the asterisk is not allowed.
        self.public_fields = _ALLOW_ORIGIN + b"*\r\n" + exposed
        self._answers = {origin: self._answer(origin) for origin in self.origins - self.wildcards}
        self._preflights: dict[tuple[bytes, bytes | None], bytes] = {}

    def allows(self, origin: bytes | None, tenant_origins: Container[bytes] = ()) -> bool:
        """Whether pages of this origin may read responses."""
        return origin is not None and (origin in self._answers or origin in tenant_origins)

    def answer_fields(
        self, origin: bytes | None, tenant_origins: Container[bytes] = (), any_configured: bool = False
    ) -> bytes:
        """The finished header lines of any response except a preflight's.

        `origin` is the request's Origin value, None without one; if there are several, any value that is not a single
        origin (such as all of them joined). `tenant_origins` are those of the request's tenant. `any_configured` says
        that some tenant has origins, so that caches must keep responses apart.
        """
        if origin is not None:
            fields = self._answers.get(origin)
            if fields is not None:
                return fields
            if origin in tenant_origins:
                return self._answer(origin)
        return VARY_ORIGIN if any_configured or self.origins else b""

    def preflight(
        self,
        origin: bytes,
        requested_method: bytes,
        requested_headers: bytes | None,
        tenant_origins: Container[bytes] = (),
    ) -> bytes | None:
        """The finished header lines of a preflight's 204 response; None if it must not get one.

        That is if the origin is foreign, if no method is requested (then it is not a preflight), or if a requested
        name is not a header name. For a method that is not allowed the response still lists those that are: the
        browser refuses by itself.
        """
        if not requested_method or not (origin in self._answers or origin in tenant_origins):
            return None
        key = (origin, requested_headers)
        fields = self._preflights.get(key)
        if fields is None:
            allow_headers = self._allowed_headers(requested_headers)
            if allow_headers is None:
                return None
            fields = b"".join(
                (
                    _ALLOW_ORIGIN + origin + b"\r\n",
                    self._allow_credentials,
                    self._allow_methods_and_age,
                    allow_headers,
                    _PREFLIGHT_VARY,
                )
            )
            self._keep(key, fields)
        return fields

    def public_preflight(self, requested_method: bytes, requested_headers: bytes | None) -> bytes | None:
        """The header lines of the 204 that lets any page read a public document; None if the preflight asks for
        more."""
        if requested_method not in READING:
            return None
        allow_headers = self._allowed_headers(requested_headers)
        if allow_headers is None:
            return None
        return b"%b*\r\nAccess-Control-Allow-Methods: GET, HEAD\r\n%b%b" % (
            _ALLOW_ORIGIN,
            allow_headers,
            _PREFLIGHT_VARY,
        )

    def _answer(self, origin: bytes) -> bytes:
        """The header lines of a response to this allowed origin."""
        return _ALLOW_ORIGIN + origin + self._answer_tail

    def _allowed_headers(self, requested: bytes | None) -> bytes | None:
        """The Allow-Headers line for the requested names: empty if there are none, None if they are malformed."""
        asked = requested.strip(b" \t,") if requested else b""
        if not asked:
            return b""
        if self._allow_headers:
            return self._allow_headers
        if len(asked) > _MAX_REQUESTED or asked.count(b",") >= MAX_LISTED:
            return None
        if not _NAMES.fullmatch(asked):
            asked = b", ".join(filter(None, (each.strip(b" \t") for each in asked.split(b","))))
            if not _NAMES.fullmatch(asked):
                return None
        return b"Access-Control-Allow-Headers: " + asked + b"\r\n"

    def _keep(self, key: tuple[bytes, bytes | None], fields: bytes) -> None:
        """Cache a response within the bound; a full cache is cleared."""
        if len(key[1] or b"") <= _KEPT_REQUESTED:
            if len(self._preflights) >= _KEPT_ANSWERS:
                self._preflights.clear()
            self._preflights[key] = fields
