"""The TLS contexts of all endpoints of a gateway, and the certificates that they serve, which are watched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from OpenSSL import SSL
from twisted.logger import Logger

from ..config import Authorities
from ..reactor.daemon_threads import daemon_threads
from ..tls.acme_challenges import ChallengePlace, counters
from ..tls.certificate_store import CertificateStore, OwnCertificateStore
from ..tls.certificate_watcher import CertificateWatcher, WatchedContexts, warn
from ..tls.certificates import CertificateError
from ..tls.client_auth import client_verification
from ..tls.contexts import HTTP_1, ContextOptions, ServerContexts, build_context
from ..tls.folder import CertificateLocation, folder_location
from ..tls.issued_store import IssuedPlace, IssuedStore, LayeredStore, WatchedStore
from ..tls.sni_index import SniIndex
from ..tls.ticket_contexts import TicketContexts

_log = Logger()

DEFAULT_OPTIONS = ContextOptions()


class TlsOptions(Protocol):
    """The part of `[tls]` that endpoints need."""

    @property
    def certificates(self) -> Path | None:
        """The folder of certificates; None for none."""

    @property
    def default(self) -> str:
        """The name of the certificate for unknown names; "" for the first."""

    @property
    def strict_sni(self) -> bool:
        """Whether unknown names are refused."""

    @property
    def client_ca(self) -> Authorities | None:
        """The authorities that verify client certificates."""

    @property
    def client_auth(self) -> Sequence[tuple[str, str]]:
        """Which hosts ask for one, as `ClientAuth` takes them."""


class AcmeFiles(NamedTuple):
    """Where the certificates of an ACME authority are, and its challenges; None if no handshake answers these."""

    issued: IssuedPlace
    challenges: ChallengePlace | None


class EndpointContexts:
    """Makes the contexts of endpoints. Those without certificates of their own share theirs."""

    def __init__(
        self,
        reactor: Any,
        tls: TlsOptions,
        state_dir: Path,
        base_domain: str,
        *,
        warned: Callable[[list[str]], None] = warn,
        protocols: tuple[bytes, ...] = HTTP_1,
        tickets: TicketContexts | None = None,
        acme: AcmeFiles | None = None,
    ) -> None:
        """See `listening.endpoints.Endpoints`."""
        self._protocols = protocols
        self._tls = tls
        self._state_dir = state_dir
        self._base_domain = base_domain
        self._warned = warned
        self._shared: WatchedContexts | None = None
        self._tickets = tickets
        self._acme = acme
        self._watch = CertificateWatcher(daemon_threads(reactor, "certificates"), tickets)

    @property
    def configured(self) -> bool:
        """Whether there is a folder of certificates."""
        return self._tls.certificates is not None

    def of(self, text: str, options: ContextOptions, place: CertificateLocation | None) -> ServerContexts:
        """The contexts for an endpoint with certificates of its own, at a place; else the shared ones. Raises
        CertificateError."""
        if place is not None:
            return self._opened(text, CertificateStore(place), self._asking(options))
        if self._shared is None:
            self._opened("", self._settings_store(None), self._asking(DEFAULT_OPTIONS))
            self._shared = self._watch.watched[-1]
            self._shared.contexts.answer_challenges(self._acme and self._acme.challenges)
        return self._shared.contexts

    def reload(
        self,
        tls: TlsOptions,
        base_domain: str | None = None,
        protocols: tuple[bytes, ...] | None = None,
        acme: AcmeFiles | None = None,
    ) -> None:
        """Read every certificate again, in a thread, and serve it from the next connection on.

        A file that cannot be used leaves the previous certificate in place, and the log says so. `base_domain` is for
        the self-signed one; None keeps it, and the `protocols`, as they are. Without `acme` none of its certificates
        are served any more.
        """
        self._protocols = protocols or self._protocols
        before = self._place()
        self._acme = acme
        self._tls, self._base_domain = tls, base_domain or self._base_domain
        for each in self._watch.watched:
            options = self._asking(each.contexts.options)
            try:
                each.contexts.serve(each.contexts.names, tls.strict_sni, options)
            except CertificateError as error:
                _log.error("{fault}", fault=str(error))
        if self._shared is not None:
            self._shared.contexts.answer_challenges(acme and acme.challenges)
            if self._place() != before:
                store = self._shared.store
                store.stop()
                served = store.operators if isinstance(store, LayeredStore) else self._shared.contexts.names
                self._shared.store = self._settings_store(served)
        self._watch.again()

    def sweep(self, now: float) -> None:
        """Check for changed files, and rotate the keys of session tickets; `now` is in monotonic seconds."""
        self._watch.sweep(now)

    def stop(self) -> None:
        """Stop watching files."""
        self._watch.stop()

    def expiries(self) -> dict[str, float]:
        """When each served certificate expires, by its name, in seconds since the epoch; of several with one name the
        first to expire."""
        expiries: dict[str, float] = {}
        for each in self._watch.watched:
            for served in each.contexts.certificates:
                expiries[served.name] = min(served.expires, expiries.get(served.name, math.inf))
        return expiries

    @property
    def faulty(self) -> int:
        """How many certificates on disk cannot be used, as of the last look."""
        return sum(each.faulty for each in self._watch.watched)

    def _asking(self, options: ContextOptions) -> ContextOptions:
        """The same options, with the protocols and the client authentication of the settings."""
        clients = client_verification(self._tls.client_ca, self._tls.client_auth)
        return replace(options, clients=clients, protocols=self._protocols)

    @property
    def names(self) -> SniIndex | None:
        """The shared certificates; None if no port serves them."""
        return None if self._shared is None else self._shared.contexts.names

    @property
    def operators(self) -> SniIndex | None:
        """The operator's certificates among the shared ones; None if there are none."""
        if self._shared is None or self._tls.certificates is None:
            return None
        store = self._shared.store
        return store.operators if isinstance(store, LayeredStore) else self._shared.contexts.names

    @property
    def challenges(self) -> dict[str, int]:
        """What has become of handshakes that ask for the challenge of an ACME authority; see `acme_challenges`."""
        return counters() if self._shared is None else self._shared.contexts.challenges

    def _opened(self, text: str, store: WatchedStore, options: ContextOptions) -> ServerContexts:
        now = time.time()
        try:
            names, warnings = store.open(now)
        except CertificateError:
            # Report both, so that both can be corrected at once.
            self._warned(store.warnings(now))
            raise
        contexts = ServerContexts(
            names, options=options, strict=self._tls.strict_sni, tickets=self._row_of_tickets(options)
        )
        chosen = self._tls.strict_sni or (self._tls.default and not text)
        operators = store.operators if isinstance(store, LayeredStore) else names
        if operators is not None and len(operators.certificates) > 1 and not chosen:
            warnings.append(
                f"clients that ask for no name or an unknown one get {names.default.name};"
                " set tls.default to choose, or tls.strict_sni to refuse them"
            )
        self._warned(warnings)
        self._watch.watched.append(WatchedContexts(text, store, contexts))
        return contexts

    def _row_of_tickets(self, options: ContextOptions) -> Callable[[], SSL.Context | None] | None:
        """The contexts with the ticket keys that all workers have for the next contexts, None without workers."""
        tickets, number = self._tickets, len(self._watch.watched)
        if tickets is None:
            return None
        tickets.make_row(number, lambda: build_context(None, replace(options, clients=None)))
        return lambda: tickets.at(number, time.monotonic())

    def _place(self) -> tuple[object, ...]:
        """Where the shared certificates come from."""
        issued = self._acme and self._acme.issued
        if self._tls.certificates is None:
            return self._base_domain, issued
        return self._tls.certificates, self._tls.default, issued

    def _settings_store(self, before: SniIndex | None) -> WatchedStore:
        """The shared certificates; `before` are the operator's that these replace."""
        tls, own = self._tls, None
        store: WatchedStore
        if tls.certificates is None:
            own = self._base_domain
            store = OwnCertificateStore(self._state_dir, own)
        else:
            store = CertificateStore(folder_location(tls.certificates), tls.default, before)
        if self._acme is None:
            return store
        return LayeredStore(store, IssuedStore(self._acme.issued), own, before)
