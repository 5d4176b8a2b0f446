"""Every attack there is."""

from __future__ import annotations

import flood_frames
import flood_holding
import flood_http1
import flood_http2
import flood_refusals
import flood_tls
from flood_swarm import Attack


def cases() -> list[Attack]:
    """All of them, by item."""
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
    return sorted(attacks, key=lambda attack: attack.item)


def chosen(words: list[str]) -> list[Attack]:
    """Those that a word names: `name/transport`, a name, a transport or an item; without words all.

    ValueError for a word that names nothing.
    """
    attacks = cases()
    if not words:
        return attacks
    unknown = [word for word in words if not any(_named(attack, word) for attack in attacks)]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}; see --list")
    return [attack for attack in attacks if any(_named(attack, word) for word in words)]


def _named(attack: Attack, word: str) -> bool:
    return word in (f"{attack.name}/{attack.transport}", attack.name, attack.transport, attack.item)
