"""An explanation as one JSON object: what `explain --json` prints and the admin port responds with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Refusal
from .explained_request import ExplainedRequest
from .explanation import Explanation


def explanation_document(
    request: ExplainedRequest,
    found: Explanation,
    addresses: Mapping[str, str],
    lefts: Mapping[str, int] | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """The object. `addresses` are those of the services by name, as text; `lefts` what each limit has left for this
    request in a running gateway, and `store` where that keeps limits; None if no gateway was asked."""
    outcome = found.outcome
    forwarded = not isinstance(outcome, Refusal) and outcome not in ("preflight", "options")
    return {
        "request": {"method": request.method, "url": request.url, "from": request.peer},
        "live": lefts is not None,
        "served": not isinstance(outcome, Refusal),
        "outcome": "refused" if isinstance(outcome, Refusal) else "forwarded" if forwarded else outcome,
        "client": found.client,
        "tenant": {"slug": found.slug or None, "reason": found.tenant},
        "certificate": found.certificate or None,
        "cors": found.cors,
        "store": store,
        "limits": [
            {"name": name, "rule": rule, "left": None if lefts is None else lefts.get(name)}
            for name, rule in zip(found.limit_names, found.limits, strict=True)
        ],
        "route": found.route,
        "access": found.access or None,
        "context": found.context or None,
        "service": {"name": outcome, "address": addresses.get(str(outcome), "")} if forwarded else None,
        "answer": _answer(found),
    }


def _answer(found: Explanation) -> dict[str, Any]:
    """What the gateway responds with, or adds to the response of the service: status and body are then null."""
    outcome = found.outcome
    answer: dict[str, Any] = {"status": None, "code": None, "detail": None}
    if isinstance(outcome, Refusal):
        answer = {"status": outcome.status, "code": outcome.code, "detail": outcome.detail}
    elif outcome in ("preflight", "options"):
        answer["status"] = 204
    lines = found.fields.decode("latin-1").splitlines()
    answer["fields"] = [list(line.partition(": ")[::2]) for line in lines]
    answer["body"] = found.body.decode("utf-8", "replace") if isinstance(outcome, Refusal) else None
    return answer
