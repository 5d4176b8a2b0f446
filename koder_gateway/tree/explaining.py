"""Explanations of requests by the policy of a configuration, or of a running gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..config import Settings
from ..config.faults import without_secrets
from ..exchange.explained_request import ExplainedRequest
from ..exchange.explanation import explain
from ..exchange.explanation_document import explanation_document
from ..policy.certificates import TlsInfo
from ..policy.clients import plain_host
from ..policy.decision import Policy
from ..policy.limit_reading import LimitReading
from .compose import Composition, make_reader


def explained(request: ExplainedRequest, settings: Settings, policy: Policy, now: float) -> dict[str, Any]:
    """The explanation by a policy of its own, which is charged for the request."""
    addresses = {name: ", ".join(entry.urls) for name, entry in settings.services.items()}
    return _document(request, settings, policy, now, addresses)


def explained_live(request: ExplainedRequest, composition: Composition, now: float) -> dict[str, Any]:
    """The explanation by the generation in force at `now`, in monotonic seconds, with what limits have left, and
    which addresses are out of use. Nobody is charged."""
    settings, policy = composition.settings, composition.policy
    reading = LimitReading(policy.limiter)
    store = without_secrets(settings.limits_store.url.text)
    addresses = {name: service.description for name, service in composition.services.items()}
    return _document(request, settings, replace(policy, limiter=reading), now, addresses, reading.lefts, store)


def _document(
    request: ExplainedRequest,
    settings: Settings,
    policy: Policy,
    now: float,
    addresses: Mapping[str, str],
    lefts: Mapping[str, int] | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    head = request.head(make_reader(settings), settings.requests.max_head)
    # As over a correct connection: opened for that host, with the certificate that it may require.
    secured = TlsInfo(client=b"some", authorities=policy.client_auth.digest) if request.secure else None
    found = explain(policy, head, plain_host(request.peer), secured, settings.tenants.base_domain, now, request.body)
    return explanation_document(request, found, addresses, lefts, store)
