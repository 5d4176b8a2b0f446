"""What the admin port serves: the pages of one gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from ..config.faults import without_secrets
from ..errors import BAD_REQUEST
from ..exchange.explained_request import ExplainedRequest, explained_request
from ..listening.endpoint_contexts import EndpointContexts
from ..ops.admin import AdminResponse, Pages, admin_pages, admin_problem, json_response, query_of, readiness
from ..ops.admin_channel import AdminFactory
from ..ops.limits_page import limits_document
from ..ops.process_state import Present
from ..ops.status_document import ServiceFacts, StatusFacts, status_document
from ..ops.status_page import status_page
from ..tls.sni_index import SniIndex
from ..tree.compose import Composition
from ..tree.explaining import explained_live
from ..version import VERSION
from ..wire.accept import prefers_page
from ..wire.request_head import RequestHead
from .ports import acme_files_of
from .process import Process
from .served_certificate import certificate_reason, is_issued

_QUERY: Final = (
    "Write /explain?url=https://acme.id.koder.dev/v1/users; method, from, data, and header as often as need be."
)
# In the query of /explain; a head has no more fields either.
_PARAMETERS: Final = 128


class Administered(Protocol):
    """A gateway, as its admin port sees it."""

    process: Process
    composition: Composition
    """The generation in force."""

    def unready(self) -> list[str]:
        """Why it should get no traffic."""

    def metrics(self) -> bytes:
        """The metrics page."""

    def sampled(self) -> Present:
        """The state of its process."""


class AdminPort:
    """The pages of `gateway`, which listens on these `endpoints`, by their key in `[listen]`. `monotonic` is the
    clock of its limits, `contexts` are those of its ports."""

    def __init__(
        self,
        gateway: Administered,
        endpoints: Mapping[str, Sequence[str]],
        monotonic: Callable[[], float],
        contexts: EndpointContexts | None = None,
    ) -> None:
        self._gateway = gateway
        self._contexts = contexts
        self._endpoints = endpoints
        self._monotonic = monotonic

    def factory(self, reactor: Any) -> AdminFactory:
        """What a listening port needs."""
        return AdminFactory(
            self.pages(), reactor, lambda: self._gateway.composition.settings.listen.admin_hosts, self.docs_url
        )

    def pages(self) -> Pages:
        """All pages by path."""
        gateway = self._gateway
        plain = admin_pages(
            gateway.unready,
            gateway.metrics,
            self.docs_url,
            lambda: gateway.composition.policy.jwks,
            lambda: gateway.process.pid,
        )
        own: Pages = {
            b"/": self._root,
            b"/limits": lambda _: json_response(self._limits()),
            b"/status": lambda _: json_response(self._status()),
            b"/explain": self._explain,
        }
        return {**plain, **own}

    def docs_url(self) -> str:
        """See `wire.problem`."""
        return self._gateway.composition.settings.problems.docs_url

    def _root(self, head: RequestHead) -> AdminResponse:
        """The status page for browsers; for probes that name no path, whether the gateway is ready."""
        unready = self._gateway.unready()
        if head.method != b"OPTIONS" and prefers_page(head.fields):
            return status_page(not unready)
        return readiness(head, unready, self.docs_url())

    def _limits(self) -> dict[str, Any]:
        gateway = self._gateway
        return limits_document(gateway.process.limits(gateway.sampled), self._store, time.time())

    @property
    def _store(self) -> str:
        return without_secrets(self._gateway.composition.settings.limits_store.url.text)

    def _status(self) -> dict[str, Any]:
        gateway = self._gateway
        composition = gateway.composition
        settings = composition.settings
        registry = settings.tenants.registry
        configuration = {
            "file": None if settings.source is None else str(settings.source),
            "sha256": settings.digest or None,
            "listen": self._endpoints,
            "base_domain": settings.tenants.base_domain,
            # The query of a URL may be a secret.
            "registry": registry.partition("?")[0] if isinstance(registry, str) else registry and str(registry),
            "routes": len(settings.routes),
        }
        services = [
            ServiceFacts(name, [each.url for each in service.addresses], service.max_connections)
            for name, service in composition.services.items()
        ]
        acme = acme_files_of(settings)
        names = self._names
        issued = None if acme is None else lambda name: is_issued(names, name, acme.issued.certificates)
        facts = StatusFacts(
            VERSION, gateway.unready(), configuration, services, registry is not None, self._store, issued
        )
        return status_document(gateway.process.state(gateway.sampled), facts, time.monotonic(), time.time())

    @property
    def _names(self) -> SniIndex | None:
        return None if self._contexts is None else self._contexts.names

    def _explain(self, head: RequestHead) -> AdminResponse:
        try:
            request = _asked(query_of(head))
        except ValueError as error:
            return admin_problem(BAD_REQUEST.because(str(error)), self.docs_url())
        composition = self._gateway.composition
        document = explained_live(request, composition, self._monotonic())
        names = self._names if request.secure else None
        document["server_certificate"] = None
        if names is not None:
            settings, registry = composition.settings, composition.policy.registry
            document["server_certificate"] = certificate_reason(request.host, names, settings, registry)
        return json_response(document)


def _asked(query: bytes) -> ExplainedRequest:
    """The request that a query names: `url`, `method`, `from`, `data` (a form), and `header` for each. Raises
    ValueError."""
    try:
        words = parse_qs(
            query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape", max_num_fields=_PARAMETERS
        )
    except ValueError:
        raise ValueError(f"The query has more than {_PARAMETERS} parameters. {_QUERY}") from None
    single = [words.get(name, [None]) for name in ("method", "url", "from", "data")]
    if any(len(values) != 1 for values in single):
        raise ValueError(_QUERY)
    (method,), (url,), (peer,), (data,) = single
    if not url:
        raise ValueError(_QUERY)
    return explained_request(method, url, words.get("header", []), "192.0.2.1" if peer is None else peer, data)
