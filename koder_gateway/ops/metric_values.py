"""Metrics as plain values: taken from a registry, sent between processes, and looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client import CollectorRegistry


class Sampled(msgspec.Struct, array_like=True):
    """One sample."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, array_like=True):
    """One family of samples."""

    name: str
    text: str
    type: str
    samples: list[Sampled]


def families_of(registry: CollectorRegistry) -> list[Family]:
    """The present values of a registry."""
    return [
        Family(m.name, m.documentation, m.type, [Sampled(s.name, dict(s.labels), float(s.value)) for s in m.samples])
        for m in registry.collect()
    ]


class MetricValues:
    """The samples of families, by their names without the gateway's prefix, as in `requests_total`."""

    def __init__(self, families: Iterable[Family], prefix: str = "koder_gateway_") -> None:
        self._samples: dict[str, list[Sampled]] = {}
        # By a name and a label, the samples with each value of that label: there may be thousands with one name.
        self._indexes: dict[tuple[str, str], dict[str, list[Sampled]]] = {}
        for family in families:
            for sample in family.samples:
                if sample.name.startswith(prefix):
                    self._samples.setdefault(sample.name.removeprefix(prefix), []).append(sample)

    def rows(self, name: str, **labels: str) -> list[Sampled]:
        """The samples of this name that have these labels; none if there is no such metric."""
        found = self._samples.get(name, [])
        if not labels:
            return found
        first, wanted = next(iter(labels.items()))
        found = self._index(name, first).get(wanted, [])
        return [each for each in found if all(each.labels.get(key) == value for key, value in labels.items())]

    def _index(self, name: str, label: str) -> dict[str, list[Sampled]]:
        index = self._indexes.get((name, label))
        if index is None:
            index = self._indexes[name, label] = {}
            for each in self._samples.get(name, []):
                index.setdefault(each.labels.get(label, ""), []).append(each)
        return index

    def total(self, name: str, **labels: str) -> int:
        """The sum of those samples, which are whole numbers."""
        return int(sum(each.value for each in self.rows(name, **labels)))

    def by(self, label: str, name: str, **labels: str) -> Mapping[str, int]:
        """The sums of those samples, by the value of a label; whole numbers."""
        sums: dict[str, int] = {}
        for each in self.rows(name, **labels):
            value = each.labels.get(label, "")
            sums[value] = sums.get(value, 0) + int(each.value)
        return sums
