"""Every refusal and failure response of the gateway: status, code, title, and whose fault it is.

A `Refusal` is a value. The pure core returns it, the tree renders it, the access log has its code; where a value
cannot be returned (inside a parser), `RefusedError` carries it. The codes are a promise to users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Fault = Literal["client", "service", "gateway"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One response without (or instead of) a service.

    `detail` is one sentence for a person who debugs the client. `fields` are finished header lines (`Name: value
    CRLF`) of the response. With `close` the connection ends afterwards: either the framing is ambiguous, or there is
    a body that will not be read.
    """

    status: int
    code: str
    title: str
    detail: str
    fault: Fault = "client"
    close: bool = False
    fields: bytes = b""

    def because(self, detail: str) -> Refusal:
        """The same refusal with a more exact detail."""
        return replace(self, detail=detail)

    def with_fields(self, fields: bytes) -> Refusal:
        """The same refusal with these header lines after its own."""
        return replace(self, fields=self.fields + fields)

    def closing(self) -> Refusal:
        """The same refusal, after which the connection ends."""
        return replace(self, close=True)


class RefusedError(Exception):
    """Carries a refusal out of code that cannot return it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


# The methods that the gateway forwards; everything else is refused before routing.
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_ALLOW = b"Allow: " + b", ".join(METHODS) + b"\r\n"

BAD_REQUEST = Refusal(400, "bad_request", "Bad Request", "The request is malformed.")
# Ambiguous framing: nothing after it on this connection can be trusted (RFC 9112 section 11.2).
BAD_FRAMING = BAD_REQUEST.because("The message's framing is ambiguous.").closing()
TENANT_REQUIRED = Refusal(400, "tenant_required", "Bad Request", "This host needs a tenant header.")
TENANT_CONFLICT = Refusal(400, "tenant_conflict", "Bad Request", "The tenant header contradicts the host.")
TENANT_SUSPENDED = Refusal(403, "tenant_suspended", "Forbidden", "This tenant is suspended.")
NOT_ALLOWED = Refusal(403, "not_allowed", "Forbidden", "This client may not make this request.")
NO_ROUTE = Refusal(404, "no_route", "Not Found", "No route matches this path.")
UNKNOWN_TENANT = Refusal(404, "unknown_tenant", "Not Found", "There is no such tenant.")
METHOD_NOT_ALLOWED = Refusal(
    405, "method_not_allowed", "Method Not Allowed", "The gateway never forwards this method.", fields=_ALLOW
)
REQUEST_TIMEOUT = Refusal(
    408, "request_timeout", "Request Timeout", "The request did not arrive in time.", close=True
)
BODY_TOO_LARGE = Refusal(
    413, "body_too_large", "Content Too Large", "The request's body is over the limit.", close=True
)
URI_TOO_LONG = Refusal(414, "uri_too_long", "URI Too Long", "The request's target is over the limit.", close=True)
EXPECTATION_FAILED = Refusal(
    417, "expectation_failed", "Expectation Failed", "The only supported expectation is 100-continue.", close=True
)
MISDIRECTED_REQUEST = Refusal(421, "misdirected_request", "Misdirected Request", "This host is not served here.")
RATE_LIMITED = Refusal(429, "rate_limited", "Too Many Requests", "Too many requests; try again later.")
HEAD_TOO_LARGE = Refusal(
    431,
    "head_too_large",
    "Request Header Fields Too Large",
    "The request's head is over the limit.",
    close=True,
)
NOT_IMPLEMENTED = Refusal(501, "not_implemented", "Not Implemented", "The gateway does not support this method.")
UNKNOWN_CODING = Refusal(
    501, "not_implemented", "Not Implemented", "The only supported transfer coding is chunked.", close=True
)
INTERNAL_ERROR = Refusal(500, "internal_error", "Internal Server Error", "The gateway failed.", "gateway", close=True)
UPSTREAM_UNREACHABLE = Refusal(
    502, "upstream_unreachable", "Bad Gateway", "The service cannot be reached.", "service"
)
UPSTREAM_UNTRUSTED = Refusal(
    502, "upstream_untrusted", "Bad Gateway", "The service could not prove its identity.", "service"
)
UPSTREAM_INVALID = Refusal(502, "upstream_invalid", "Bad Gateway", "The service's response is malformed.", "service")
UPSTREAM_CLOSED = Refusal(
    502, "upstream_closed", "Bad Gateway", "The service closed the connection before its response.", "service"
)
OVERLOADED = Refusal(
    503,
    "overloaded",
    "Service Unavailable",
    "Too many requests are in flight; try again.",
    "gateway",
    fields=b"Retry-After: 1\r\n",
)
SERVICE_UNAVAILABLE = OVERLOADED.because("The service is not available at present; try again.")
DRAINING = Refusal(
    503,
    "draining",
    "Service Unavailable",
    "The gateway is shutting down.",
    "gateway",
    close=True,
    fields=b"Retry-After: 1\r\n",
)
UPSTREAM_TIMEOUT = Refusal(
    504, "upstream_timeout", "Gateway Timeout", "The service did not respond in time.", "service"
)

# Every code of the gateway's own responses.
CODES: Final = tuple(sorted({value.code for value in tuple(globals().values()) if isinstance(value, Refusal)}))
