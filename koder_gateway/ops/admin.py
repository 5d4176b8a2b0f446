"""The admin endpoint: whether the gateway lives, whether it takes requests, and its metrics.

It belongs on a port of its own that the public does not reach.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from ..errors import DRAINING, METHOD_NOT_ALLOWED, NO_ROUTE, Refusal
from .metrics import CONTENT_TYPE as METRICS_TYPE

_PROBLEM_TYPE = b"application/problem+json"
_TEXT_TYPE = b"text/plain; charset=utf-8"
_NOT_READY = Refusal(503, "not_ready", "Service Unavailable", "The gateway is not ready.", "gateway")
_NOT_FOUND = NO_ROUTE.because("There are /healthz, /readyz and /metrics here.")
# A scraper keeps its connection; one that sends nothing for this long, in seconds, is let go.
_IDLE = 75

# An answer: status, content type, body.
Answer = tuple[int, bytes, bytes]


def admin_resource(ready: Callable[[], list[str]], metrics: Callable[[], bytes]) -> IResource:
    """The resource tree. `ready` gives the reasons why not, none when ready; `metrics` the metrics page."""
    root = _Page(_missing)
    root.putChild(b"healthz", _Page(lambda: (200, _TEXT_TYPE, b"ok\n")))
    root.putChild(b"readyz", _Page(lambda: _readiness(ready())))
    root.putChild(b"metrics", _Page(lambda: (200, METRICS_TYPE, metrics())))
    return root


def admin_site(root: IResource, reactor: Any) -> Site:
    """A stock site for the admin tree, without a log of its own."""
    return _AdminSite(root, reactor=reactor, timeout=_IDLE, parsePOSTFormSubmission=False)


class _AdminSite(Site):
    noisy = False
    displayTracebacks = False

    def log(self, request: Any) -> None:
        """Write nothing: a probe every few seconds would be most of the log."""


class _Page(Resource):
    """One page for GET and HEAD; what lies below it does not exist."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        super().__init__()
        self._answer = answer

    def getChild(self, path: bytes, request: Any) -> IResource:
        """See IResource."""
        return _Page(_missing)

    def render(self, request: Any) -> bytes:
        """See IResource."""
        readable = request.method in (b"GET", b"HEAD")
        status, content_type, body = self._answer() if readable else _problem(METHOD_NOT_ALLOWED)
        request.setResponseCode(status)
        request.responseHeaders.removeHeader(b"server")
        request.setHeader(b"content-type", content_type)
        request.setHeader(b"cache-control", b"no-store")
        if not readable:
            request.setHeader(b"allow", b"GET, HEAD")
        if request.method == b"HEAD":
            request.setHeader(b"content-length", b"%d" % len(body))
            return b""
        return body


def _missing() -> Answer:
    return _problem(_NOT_FOUND)


def _readiness(reasons: list[str]) -> Answer:
    if not reasons:
        return 200, _TEXT_TYPE, b"ready\n"
    refusal = DRAINING if "draining" in reasons else _NOT_READY.because("; ".join(reasons))
    return _problem(refusal, reasons=reasons)


def _problem(refusal: Refusal, **extension: object) -> Answer:
    """A refusal as problem details (RFC 9457)."""
    document = {
        "type": f"urn:koder-gateway:{refusal.code}",
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
        **extension,
    }
    return refusal.status, _PROBLEM_TYPE, json.dumps(document).encode() + b"\n"
