"""What the admin port serves: the pages of one gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from ..config.faults import without_secrets
from ..ops.admin import AdminResponse, admin_pages
from ..ops.admin_channel import AdminFactory
from ..ops.limits_page import limits_document
from ..tree.compose import Composition

_JSON = b"application/json"


def admin_factory(
    reactor: Any,
    present: Callable[[], Composition],
    unready: Callable[[], list[str]],
    metrics: Callable[[], bytes],
    process: Callable[[], int],
    monotonic: Callable[[], float],
) -> AdminFactory:
    """The admin port of one gateway. `present` returns the generation in force; for the others see `admin_pages`."""

    def docs_url() -> str:
        return present().settings.problems.docs_url

    def limits() -> AdminResponse:
        composition = present()
        policy = composition.policy
        store = without_secrets(composition.settings.limits_store.url.text)
        return _json(limits_document(policy.limiter, policy.figures, store, monotonic(), time.time()))

    pages = {**admin_pages(unready, metrics, docs_url, lambda: present().policy.jwks, process), b"/limits": limits}
    return AdminFactory(pages, reactor, lambda: present().settings.listen.admin_hosts, docs_url)


def _json(document: object) -> AdminResponse:
    return AdminResponse(200, _JSON, msgspec.json.encode(document) + b"\n")
