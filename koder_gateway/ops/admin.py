"""The admin endpoint: liveness, readiness, metrics, and what else the owner of the port adds.

It belongs on a port of its own that the public cannot reach. An attacker may still reach it through a browser on the
inner network, under a name of the attacker's (DNS rebinding), so the Host must be an address, localhost, or a listed
name.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..errors import DRAINING, METHOD_NOT_ALLOWED, MISDIRECTED_REQUEST, NO_ROUTE, Refusal
from ..policy.tenants import bare_host
from ..wire.accept import names_json
from ..wire.problem import CONTENT_TYPE as PROBLEM_TYPE
from ..wire.problem import DOCS_URL, problem_details
from ..wire.request_head import RequestHead
from .metrics import CONTENT_TYPE as METRICS_TYPE

# RFC 7517 section 8.5.
_KEYS_TYPE: Final = b"application/jwk-set+json"
# Services keep the keys for five minutes (`koder_gateway.context`).
_KEPT_KEYS: Final = b"Cache-Control: public, max-age=300\r\n"
_JSON_TYPE: Final = b"application/json"
_TEXT_TYPE: Final = b"text/plain; charset=utf-8"
_NOT_READY: Final = Refusal(503, "not_ready", "Service Unavailable", "The gateway is not ready.", "gateway")
_NOT_FOUND: Final = NO_ROUTE.because(
    "This port serves /, /healthz, /readyz, /status, /metrics, /limits, /explain, /process and"
    " /.well-known/jwks.json."
)
_NO_KEYS: Final = NO_ROUTE.because("There are no keys: context.key_file is not set.")
_FOREIGN: Final = MISDIRECTED_REQUEST.because("Use an IP address, localhost, or a name from listen.admin_hosts.")
_READ_ONLY: Final = METHOD_NOT_ALLOWED.because("This port only answers GET, HEAD and OPTIONS.")
_ALLOW: Final = b"Allow: GET, HEAD, OPTIONS\r\n"


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """The response to a request. `fields` are finished header lines besides type, length and date. With `kept` they
    say how long it may be kept, else nobody may keep it."""

    status: int
    content_type: bytes
    body: bytes
    fields: bytes = b""
    kept: bool = False


Pages = Mapping[bytes, Callable[[RequestHead], AdminResponse]]


def admin_pages(
    ready: Callable[[], list[str]],
    metrics: Callable[[], bytes],
    docs_url: Callable[[], str] = lambda: DOCS_URL,
    keys: Callable[[], bytes] = bytes,
    process: Callable[[], int] = os.getpid,
) -> Pages:
    """The pages by path.

    `ready` returns the reasons for not being ready, none if ready; `metrics` returns the metrics page, `keys` the JWK
    Set of the keys that sign contexts, b"" if there are none. Readiness is also the response to a balancer's probe
    without a path (HAProxy's httpchk: `OPTIONS /`, and `OPTIONS *`). `docs_url`: see `wire.problem`. `process`
    returns the process that gets signals, and is asked to reload.
    """
    return {
        b"/": lambda head: readiness(head, ready(), docs_url()),
        b"/healthz": lambda head: AdminResponse(200, _TEXT_TYPE, b"ok\n"),
        b"/readyz": lambda head: readiness(head, ready(), docs_url()),
        b"/metrics": lambda head: AdminResponse(200, METRICS_TYPE, metrics()),
        b"/process": lambda head: json_response({"pid": process()}),
        b"/.well-known/jwks.json": lambda head: _published(keys(), docs_url()),
    }


def admin_answer(
    pages: Pages,
    hosts: Collection[bytes] | None,
    head: RequestHead,
    docs_url: str = DOCS_URL,
) -> AdminResponse:
    """The response to a request with this head; `hosts` None accepts any Host (a UNIX socket has none)."""
    refusal = head.refusal
    if refusal is not None:
        # Of an unknown method only the name has been read.
        if refusal.status in (405, 501):
            return admin_problem(_READ_ONLY, docs_url, _ALLOW)
        return admin_problem(refusal, docs_url)
    if hosts is not None and not _is_ours(head, hosts):
        return admin_problem(_FOREIGN, docs_url)
    if head.method not in (b"GET", b"HEAD", b"OPTIONS"):
        return admin_problem(_READ_ONLY, docs_url, _ALLOW)
    page = pages.get(b"/" if head.path == b"*" else head.path)
    if page is None:
        return admin_problem(_NOT_FOUND, docs_url)
    answer = page(head)
    return _options(answer) if head.method == b"OPTIONS" else answer


def _options(answer: AdminResponse) -> AdminResponse:
    """The response to OPTIONS for a path with this response to GET: balancers probe with it (HAProxy's httpchk) and
    look at the status."""
    body = b"" if answer.status == 200 else answer.body
    return replace(answer, body=body, fields=answer.fields + _ALLOW)


def _is_ours(head: RequestHead, hosts: Collection[bytes]) -> bool:
    """Whether a request's Host is one of this port's.

    A missing Host is accepted: old probes use HTTP/1.0 without one, and others send an empty one (RFC 9112 section
    3.2), while browsers always send the name that they connected to.
    """
    if not head.host:
        return True
    name = bare_host(head.host)
    if name == b"localhost" or name in hosts:
        return True
    try:
        ipaddress.ip_address(name.removeprefix(b"[").removesuffix(b"]").decode("ascii"))
    except ValueError:
        return False
    return True


def _published(keys: bytes, docs_url: str) -> AdminResponse:
    if not keys:
        return admin_problem(_NO_KEYS, docs_url)
    return AdminResponse(200, _KEYS_TYPE, keys, _KEPT_KEYS, kept=True)


def readiness(head: RequestHead, reasons: list[str], docs_url: str) -> AdminResponse:
    """Whether the gateway is ready, by the status. The body is a word or problem details; for those who ask for JSON
    (`Accept: application/json`, `?format=json`) an object with the same members in both cases."""
    if names_json(head.fields) or b"format=json" in query_of(head).split(b"&"):
        return json_response({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
    if not reasons:
        return AdminResponse(200, _TEXT_TYPE, b"ready\n")
    refusal = DRAINING if "draining" in reasons else _NOT_READY.because("; ".join(reasons))
    return admin_problem(refusal, docs_url, reasons=reasons)


def query_of(head: RequestHead) -> bytes:
    """The part of the target behind the question mark."""
    return head.target.partition(b"?")[2]


def json_response(document: object, status: int = 200) -> AdminResponse:
    """A response with a JSON document. Text that no UTF-8 can encode is escaped, which is all that can be done."""
    return AdminResponse(status, _JSON_TYPE, json.dumps(document).encode("ascii") + b"\n")


def admin_problem(refusal: Refusal, docs_url: str, fields: bytes = b"", **extension: object) -> AdminResponse:
    """A refusal as problem details (RFC 9457)."""
    document = problem_details(refusal, docs_url) | extension
    return AdminResponse(refusal.status, PROBLEM_TYPE, json.dumps(document).encode() + b"\n", fields)
