"""Every attack there is."""

from __future__ import annotations

import flood_frames
import flood_holding
import flood_http1
import flood_http2
import flood_refusals
import flood_tls
from flood_errands import ERRANDS, Errand
from flood_swarm import Attack


def cases() -> list[Attack | Errand]:
    """All attacks by item, and honest clients' errands."""
    attacks = [
        *flood_http1.unread(),
        *flood_http2.unread(),
        *flood_http1.bulk(),
        *flood_http2.bulk(),
        *flood_http2.field_blocks(),
        *flood_http2.windows(),
        *flood_http1.dear(),
        *flood_holding.held(),
        *flood_holding.tunnels(),
        *flood_tls.handshakes(),
        *flood_refusals.refusals(),
        *flood_frames.floods(),
    ]
    return [*sorted(attacks, key=lambda attack: attack.item), *ERRANDS]


def described(case: Attack | Errand) -> tuple[str, str]:
    """Its item and its name with the transport."""
    return ("7", case.name) if isinstance(case, Errand) else (case.item, f"{case.name}/{case.transport}")


def chosen(words: list[str]) -> list[Attack | Errand]:
    """Those that a word names: `name/transport`, a name, a transport or an item; without words all.

    ValueError for a word that names nothing.
    """
    known = cases()
    if not words:
        return known
    unknown = [word for word in words if not any(_named(case, word) for case in known)]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; see --list")
    return [case for case in known if any(_named(case, word) for word in words)]


def _named(case: Attack | Errand, word: str) -> bool:
    item, label = described(case)
    return word in (item, label, *label.split("/"))
