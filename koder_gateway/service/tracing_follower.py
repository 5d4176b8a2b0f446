"""The export of spans, as long as a gateway serves: begun, swept, replaced by a reload, and ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList

from ..config import TracingSettings
from ..exchange.ending import Ending
from ..ops.metric_sources import SpanFigures
from ..tracing.records import Terms
from ..tracing.span_export import SpanExport
from ..version import VERSION

# Seconds between two looks at an export that ends.
_LOOK: Final = 0.05


class TracingFollower:
    """Owns the export of the settings in force, if there is one, and those before it that are still ending. What
    `ending` has of exchanges goes there. `time` gives monotonic seconds, `worker` is the number of this process among
    its workers."""

    def __init__(self, reactor: Any, time: Callable[[], float], ending: Ending, worker: int) -> None:
        self._reactor = reactor
        self._time = time
        self._ending = ending
        self._instance = f"{secrets.token_hex(8)}{f'-{worker}' if worker else ''}"
        self._export: SpanExport | None = None
        self._leaving: list[SpanExport] = []
        self._past = SpanFigures(0, 0, 0, 0)

    def follow(self, settings: TracingSettings) -> None:
        """Export as these settings say from now on. What was collected under others still goes where these said."""
        terms = None if settings.endpoint is None else self._terms(settings.endpoint, settings)
        before = self._export
        if before is not None and before.terms == terms:
            return
        if before is not None:
            before.end(self._time())
            self._leaving.append(before)
        self._export = None if terms is None else SpanExport(terms)
        self._ending.tracing = None if self._export is None else self._export.recorder

    def sweep(self, now: float, running: bool) -> None:
        """Look after the export, which is started if the gateway serves; called four times a second."""
        for each in self._leaving:
            each.sweep(now)
        if any(each.over for each in self._leaving):
            self._forget()
        if self._export is not None and running:
            self._export.sweep(now)

    def close(self, others: Deferred[Any]) -> Deferred[Any]:
        """End the export. The Deferred fires when it has ended, and `others` have fired."""
        if self._export is None and not self._leaving:
            return others
        if self._export is not None:
            self._export.end(self._time())
            self._leaving.append(self._export)
        self._export = self._ending.tracing = None
        over: Deferred[None] = Deferred()
        self._look(over)
        return DeferredList([others, over])

    @property
    def figures(self) -> SpanFigures | None:
        """What has become of spans since the start; None if there are none."""
        present = self._leaving if self._export is None else [*self._leaving, self._export]
        if not present and self._past == SpanFigures(0, 0, 0, 0):
            return None
        return _summed(self._past, present)

    def _look(self, over: Deferred[None]) -> None:
        self.sweep(self._time(), False)
        if self._leaving:
            self._reactor.callLater(_LOOK, self._look, over)
        else:
            over.callback(None)

    def _forget(self) -> None:
        """Let go of exports that have ended, but not of what they count."""
        self._past = _summed(self._past, [each for each in self._leaving if each.over])
        self._leaving = [each for each in self._leaving if not each.over]

    def _terms(self, endpoint: str, settings: TracingSettings) -> Terms:
        headers, ca = settings.headers_file, settings.ca
        resource = [
            ("service.name", settings.service_name),
            ("service.version", VERSION),
            ("service.instance.id", self._instance),
        ]
        for attribute in settings.resource:
            name, _, value = attribute.partition("=")
            resource.append((name, value))
        pairs = [] if headers is None else list(headers.pairs)
        return Terms(endpoint, pairs, "" if ca is None else str(ca), settings.timeout, resource)


def _summed(past: SpanFigures, exports: list[SpanExport]) -> SpanFigures:
    return SpanFigures(
        past.exported + sum(each.exported for each in exports),
        past.dropped + sum(each.recorder.dropped for each in exports),
        past.lost + sum(each.lost for each in exports),
        past.failures + sum(each.failures for each in exports),
    )
