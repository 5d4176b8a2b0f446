"""Settings that are valid but probably not intended: bounds that affect honest clients, or no bounds at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import defaults
from .faults import Located, shown
from .settings import Settings

# Below this, ordinary downloads over HTTP/2 are cut when a few others are in flight.
_BUFFERED: Final = 8 << 20
# Bytes a second that a phone on a bad network may not reach.
_RATE: Final = 8 << 10
# How many connections one browser opens, and so the fewest that a client should be able to hold.
_FEW: Final = 4


def risky_settings(settings: Settings) -> Iterator[Located]:
    """The key and the message of each warning."""
    yield from _unlimited(settings)
    yield from _rates(settings)
    yield from _small_shares(settings)
    yield from _open_store(settings)


def _unlimited(settings: Settings) -> Iterator[Located]:
    if any(rule.charge == "refusals" for rule in settings.limits):
        return
    names = {rule.name for rule in settings.limits}
    gone = ", ".join(rule["name"] for rule in defaults.LIMITS if rule["name"] not in names)
    instead = "copy those that you want from the sample, refusals at least"
    yield "limits", f"replace all default limits: none of {gone} applies, and nothing limits refusals; {instead}"


def _rates(settings: Settings) -> Iterator[Located]:
    requests = settings.requests
    if requests.max_buffered < _BUFFERED:
        little = f"{requests.max_buffered} bytes are so few that ordinary downloads are cut"
        yield "requests.max_buffered", f"{little}; write 8MiB at least"
    if not requests.min_rate:
        yield (
            "requests.min_rate",
            "0 lets a client hold a connection with one byte in each timeouts.idle or timeouts.body; write a rate",
        )
    elif requests.min_rate > _RATE:
        much = (
            f"{requests.min_rate} bytes a second are more than phones reach on bad networks, and"
            " such clients are then cut off"
        )
        yield "requests.min_rate", f"{much}; write 8KiB at most"


def _open_store(settings: Settings) -> Iterator[Located]:
    """What is sent over a network in clear can be read and changed on the way."""
    url = settings.limits_store.url
    if url.scheme == "redis" and not url.stays_here:
        instead = 'write "rediss://" and, for an authority of your own, ca'
        yield (
            "limits_store.url",
            f"{shown(url.text)} is not encrypted: anybody on the way can lift all limits; {instead}",
        )


def _small_shares(settings: Settings) -> Iterator[Located]:
    totals = {f"services.{name}.max_connections": each.max_connections for name, each in settings.services.items()}
    totals["requests.max_tunnels"] = settings.requests.max_tunnels
    totals["listen.max_connections"] = settings.listen.max_connections
    for who in ("address", "tenant"):
        percents: int = getattr(settings.shares, who)
        small = [
            f"{max(1, total * percents // 100)} of {key} ({total})"
            for key, total in totals.items()
            if total >= _FEW and total * percents // 100 < _FEW
        ]
        if small:
            more = f" and {len(small) - 1} more" if len(small) > 1 else ""
            few = f"{shown(f'{percents}%')} is {small[0]}{more}"
            yield f"shares.{who}", f"{few}: the parallel requests of one browser then wait; write more"
