"""What the admin port serves: the pages of one gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs

from ..config.faults import without_secrets
from ..errors import BAD_REQUEST
from ..exchange.explained_request import ExplainedRequest, explained_request
from ..ops.admin import AdminResponse, admin_pages, admin_problem
from ..ops.admin_channel import AdminFactory
from ..ops.limits_page import limits_document
from ..tree.compose import Composition
from ..tree.explaining import explained_live

_JSON: Final = b"application/json"
_QUERY: Final = "Write /explain?url=https://acme.id.koder.dev/v1/users; method, from, and header as often as need be."
# In the query of /explain; a head has no more fields either.
_PARAMETERS: Final = 128


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

    def explain(query: bytes) -> AdminResponse:
        try:
            request = _asked(query)
        except ValueError as error:
            return admin_problem(BAD_REQUEST.because(str(error)), docs_url())
        return _json(explained_live(request, present(), monotonic()))

    pages = {**admin_pages(unready, metrics, docs_url, lambda: present().policy.jwks, process), b"/limits": limits}
    return AdminFactory(
        pages, reactor, lambda: present().settings.listen.admin_hosts, docs_url, {b"/explain": explain}
    )


def _asked(query: bytes) -> ExplainedRequest:
    """The request that a query names: `url`, `method`, `from`, and `header` for each. Raises ValueError."""
    try:
        words = parse_qs(
            query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape", max_num_fields=_PARAMETERS
        )
    except ValueError:
        raise ValueError(f"The query has more than {_PARAMETERS} parameters. {_QUERY}") from None
    single = [words.get(name, [usual]) for name, usual in (("method", "GET"), ("url", ""), ("from", "192.0.2.1"))]
    if any(len(values) != 1 for values in single) or not single[1][0]:
        raise ValueError(_QUERY)
    (method,), (url,), (peer,) = single
    return explained_request(method, url, words.get("header", []), peer)


def _json(document: object) -> AdminResponse:
    # Of a query that is no UTF-8 something has to be shown: `json` can do that.
    return AdminResponse(200, _JSON, json.dumps(document).encode("ascii") + b"\n")
