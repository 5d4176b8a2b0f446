"""The page `/status` of the admin port: the state of the gateway as one JSON object, for the status page and for
monitoring that knows no Prometheus. docs/operations.md describes its members.

All counts are of all workers together, and only ever rise until the gateway is started again, so that a reader makes
rates of two of them and `clock`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any, Final

from .limits_page import RuleDocument
from .metric_values import MetricValues
from .process_state import ProcessState, WorkerState

# Rises when a member goes or means something else; new members may come at any time.
SCHEMA: Final = 1
# How many of the busiest tenants and routes are listed, and of the certificates that expire first.
BUSIEST: Final = 20
CERTIFICATES: Final = 50
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What is configured of a service: its addresses, and how many exchanges each worker has there at most."""

    name: str
    addresses: Sequence[str]
    max_connections: int


@dataclass(frozen=True, slots=True)
class StatusFacts:
    """What no metric says. `ready` is that of the worker that answers. `configuration` are the members of that name,
    and `store` says where buckets are kept."""

    version: str
    unready: Sequence[str]
    configuration: Mapping[str, Any]
    services: Sequence[ServiceFacts]
    registry: bool
    store: str
    issued: Callable[[str], bool] | None = None
    """Whether a certificate is one that the gateway orders from an ACME authority; None if it orders none."""


def status_document(state: ProcessState, facts: StatusFacts, now: float, epoch: float) -> dict[str, Any]:
    """The object. `now` is monotonic seconds, `epoch` the same moment in seconds since 1970."""
    values = MetricValues(state.families)
    return {
        "schema": SCHEMA,
        "time": utc(epoch),
        "clock": round(now, 3),
        "version": facts.version,
        "build": _build(values),
        "started": utc(state.started),
        "uptime": round(max(0.0, epoch - state.started), 1),
        "ready": not facts.unready,
        "reasons": list(facts.unready),
        "configuration": {**facts.configuration, "read": utc(state.reloads.accepted_at or state.started)},
        "reloads": _reloads(state),
        "requests": _exchanges(values),
        "refusals": values.by("code", "refusals_total"),
        "connections": _connections(values),
        "services": [_service(values, each) for each in facts.services],
        "routes": _busiest(values, "route", "route_requests_total"),
        "tenants": _tenants(values, facts.registry),
        "limits": _limits(values, facts.store, state.limits),
        "certificates": _certificates(values, facts, epoch),
        "acme": _acme(values, facts),
        "workers": [_worker(each, epoch) for each in state.workers],
        "loop_lag": round(max((each.value for each in values.rows("event_loop_lag_max_seconds")), default=0.0), 6),
        "log": {"dropped": values.total("access_log_dropped_lines_total")},
    }


def utc(epoch: float) -> str:
    """A time in seconds since 1970 as RFC 3339 has it."""
    return datetime.fromtimestamp(int(epoch), UTC).isoformat().replace("+00:00", "Z")


def _build(values: MetricValues) -> dict[str, str]:
    found = values.rows("build_info")
    return {key: value for key, value in found[0].labels.items() if key != "version"} if found else {}


def _reloads(state: ProcessState) -> dict[str, Any]:
    record = state.reloads
    last = record.last
    told = None if last is None else {"time": utc(last.time), "accepted": not last.faults, "faults": last.faults}
    return {"accepted": record.accepted, "refused": record.refused, "last": told}


def _exchanges(values: MetricValues) -> dict[str, Any]:
    return {
        **_counted(values),
        "in_flight": values.total("exchanges_in_flight"),
        "protocols": values.by("protocol", "protocol_requests_total"),
        "retries": values.total("upstream_retries_total"),
    }


def _counted(values: MetricValues, **labels: str) -> dict[str, Any]:
    """The exchanges that have ended, of all services or of one."""
    classes = values.by("status", "requests_total", **labels)
    return {
        "total": sum(classes.values()),
        "classes": classes,
        "received_bytes": values.total("received_bytes_total", **labels),
        "sent_bytes": values.total("sent_bytes_total", **labels),
        "latency": _latency(values, **labels),
    }


def _latency(values: MetricValues, **labels: str) -> dict[str, Any]:
    """How many exchanges took up to each bound of seconds and more than the one before; the last count is of those
    that took longer than all."""
    buckets = values.by("le", "request_duration_seconds_bucket", **labels)
    bounds = sorted(float(bound) for bound in buckets)
    upto = sorted(buckets.values())
    return {
        "bounds": bounds[:-1],
        "counts": [count - before for count, before in zip(upto, [0, *upto], strict=False)],
        "seconds": round(sum(each.value for each in values.rows("request_duration_seconds_sum", **labels)), 6),
    }


def _connections(values: MetricValues) -> dict[str, Any]:
    return {
        "open": values.total("connections_open"),
        "accepted": values.total("connections_total"),
        "rejected": values.total("connections_rejected_total"),
        "handshakes_failed": values.by("reason", "tls_handshake_failures_total"),
        "http2_errors": values.total("http2_connection_errors_total"),
        "tunnels": values.total("tunnels_open"),
    }


def _service(values: MetricValues, facts: ServiceFacts) -> dict[str, Any]:
    name = facts.name
    connections = values.by("state", "upstream_connections", service=name)
    return {
        "name": name,
        "requests": _counted(values, service=name),
        "idle": connections.get("idle", 0),
        "active": connections.get("active", 0),
        "waiting": values.total("upstream_waiting", service=name),
        "max_connections": facts.max_connections,
        "tunnels": values.total("tunnels_open", service=name),
        "failures": values.by("reason", "upstream_failures_total", service=name),
        "refused": values.by("reason", "upstream_refused_total", service=name),
        "addresses": [_address(values, name, address) for address in facts.addresses],
    }


def _address(values: MetricValues, service: str, address: str) -> dict[str, Any]:
    labels = {"service": service, "address": address}
    healthy = values.rows("upstream_healthy", **labels)
    connections = values.by("state", "upstream_address_connections", **labels)
    return {
        "address": address,
        "available": bool(values.total("upstream_available", **labels)),
        "healthy": bool(healthy[0].value) if healthy else None,
        "idle": connections.get("idle", 0),
        "active": connections.get("active", 0),
    }


def _tenants(values: MetricValues, registry: bool) -> dict[str, Any]:
    return {
        "registry": registry,
        "count": values.total("tenants"),
        "skipped": values.total("registry_skipped"),
        "failures": values.total("registry_failures_total"),
        "current": bool(values.total("registry_last_read_successful")),
        "busiest": _busiest(values, "tenant", "tenant_requests_total"),
    }


def _busiest(values: MetricValues, label: str, name: str) -> list[dict[str, Any]]:
    """Those with most exchanges since the start, each with its classes of status."""
    totals = values.by(label, name)
    first = sorted(totals, key=lambda each: (-totals[each], each))[:BUSIEST]
    return [
        {label: each, "total": totals[each], "classes": values.by("status", name, **{label: each})}
        for each in first
        if totals[each]
    ]


def _limits(values: MetricValues, store: str, rules: Sequence[RuleDocument]) -> dict[str, Any]:
    up = values.rows("limits_store_up")
    return {
        "store": store,
        "store_up": bool(up[0].value) if up else None,
        "entries": values.total("limit_entries"),
        "rules": [_rule(values, rule) for rule in rules],
    }


def _rule(values: MetricValues, rule: RuleDocument) -> dict[str, Any]:
    decisions = values.by("decision", "limit_decisions_total", rule=rule["name"])
    held = values.rows("limit_in_flight", rule=rule["name"])
    named = ("name", "key", "rate", "burst", "in_flight", "mode", "charge")
    return {
        **{key: rule[key] for key in named},
        "admitted": decisions.get("admitted", 0),
        "refused": decisions.get("refused", 0),
        "would_have_refused": decisions.get("shadowed", 0),
        "held": int(sum(each.value for each in held)) if held else None,
        "over": rule["over"],
        "near": rule["near"],
    }


def _certificates(values: MetricValues, facts: StatusFacts, epoch: float) -> dict[str, Any]:
    ends = {each.labels["certificate"]: each.value for each in values.rows("certificate_expiry_timestamp_seconds")}
    first = nsmallest(CERTIFICATES, ends, key=lambda name: (ends[name], name))
    return {
        "faults": values.total("certificate_faults"),
        "count": len(ends),
        "first": [
            {
                "name": name,
                "expires": utc(ends[name]),
                "days_left": _days(ends[name] - epoch),
                "by_acme": facts.issued is not None and facts.issued(name),
            }
            for name in first
        ],
    }


def _acme(values: MetricValues, facts: StatusFacts) -> dict[str, Any] | None:
    """The orders of certificates; None if there are none."""
    if facts.issued is None:
        return None
    renewal = values.total("acme_next_renewal_timestamp_seconds")
    return {
        "orders": values.by("result", "acme_orders_total"),
        "names": values.by("state", "acme_names"),
        "next_renewal": utc(renewal) if renewal else None,
    }


def _days(seconds: float) -> float:
    """Never rounded up: what has just expired is below 0, and what has not a whole day more does not show it."""
    return math.floor(100 * seconds / _DAY) / 100


def _worker(state: WorkerState, epoch: float) -> dict[str, Any]:
    return {
        "number": state.number,
        "pid": state.pid or None,
        "ready": bool(state.pid) and not state.unready,
        "reasons": list(state.unready),
        "restarts": state.restarts,
        "silent": round(max(0.0, epoch - state.seen), 1) if state.seen else None,
    }
