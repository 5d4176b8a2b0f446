"""Which address of a service the next exchange goes to.

The next in turn and another one by lot are compared, and the one with fewer exchanges is taken: nearly as even as
comparing all, and it does not send every request of a moment to the same one (Mitzenmacher, "The Power of Two Choices
in Randomized Load Balancing"). With equally many it is the one in turn. During a slow start an address is passed over
as often as its share says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .address import Address


def choose(
    addresses: Sequence[Address], client: bytes, now: float, turn: int, draw: Callable[[], float]
) -> Address | None:
    """The address for an exchange of this client; None if probes say that each is unhealthy. `turn` is another number
    each time, `draw` returns one from 0 to 1 (exclusive), and `now` is monotonic seconds."""
    able = [address for address in addresses if address.available(now, client)]
    if not able:
        last = _last_resort(addresses, turn)
        if last is not None:
            last.chosen(client, now)
        return last
    if len(able) == 1:
        found = able[0]
    else:
        at = turn % len(able)
        first, second = able[at], able[(at + 1 + int(draw() * (len(able) - 1))) % len(able)]
        found, other = (second, first) if second.pending < first.pending else (first, second)
        share = found.share(now)
        if share < 1.0 and draw() >= share:
            found = other
    found.chosen(client, now)
    return found


def _last_resort(addresses: Sequence[Address], turn: int) -> Address | None:
    """None is available. Those whose requests or connections have failed may have recovered, and are tried, the ones
    that failed longest ago first. A probe has seen more than that: unhealthy ones are not."""
    at = turn % len(addresses) if addresses else 0
    healthy = [address for address in (*addresses[at:], *addresses[:at]) if address.healthy]
    return min(healthy, key=lambda address: address.out_until) if healthy else None
