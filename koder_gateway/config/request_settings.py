"""`[requests]`, `[shares]` and `[timeouts]`: how much one request and one client may take, and for how long."""

# Fields are declared by a call for each, whose values are immutable.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .field_names import SPOOFABLE_FIELD, TRAILER
from .kinds import listing, whole
from .tables import setting
from .values import (
    BUFFER,
    DEADLINE,
    DURATION,
    LIMIT,
    PERCENT,
    SIZE,
)

_MAX_COUNT: Final = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """[requests]: how large one request may be, in bytes; `min_rate` in bytes per second, 0 for none. `max_tunnels`:
    upgraded connections, 0 for none. `allow_fields` and `allow_trailers` are the headers and trailers that pass
    although they are dropped by default. `max_buffered`: response bytes that wait for clients, all together."""

    max_body: int = setting(
        LIMIT,
        "10MiB",
        about="A longer body is 413.",
    )
    max_head: int = setting(
        LIMIT,
        "32KiB",
        about="A longer head is 431. An HTTP/2 head is measured as it would be in HTTP/1.1; a cookie in "
        "several fields counts as the one that it becomes, each part with at least ten bytes. Over HTTP/2 only "
        "that request is refused. If the head is more than four times too long, the connection also accepts no "
        "further requests and closes when those in flight are done.",
    )
    max_fields: int = setting(
        whole(1, 65536),
        100,
        about="More headers are 431. Over HTTP/2 a cookie may arrive in several; up to 256 of them count as "
        "one, each further one as one more.",
    )
    max_target: int = setting(
        LIMIT,
        "8KiB",
        about="A longer path and query is 414.",
    )
    max_streams: int = setting(
        whole(1, 10_000),
        100,
        about="Requests in flight on one HTTP/2 connection; further ones are refused with `REFUSED_STREAM`, "
        "and clients retry them.",
    )
    min_rate: int = setting(
        SIZE,
        "1KiB",
        about="Bytes a second that a body must keep up, else 408; it may fall behind by `timeouts.body`. 0: "
        "any byte within that time is enough. A client must also read its responses at this rate, and may fall "
        "behind by `timeouts.idle`; then its response or tunnel is cut (over HTTP/2 the stream is reset; if "
        "TCP itself accepts nothing more, the connection closes with all its streams). Only what the client's "
        "side has acknowledged counts. A client that has read megabytes may have a buffer of that size, and "
        "its system acknowledges nothing until a sixteenth of it is free: it gets that much longer (at most 8 "
        "minutes, and on loopback, whose segments are large, another `timeouts.idle`). `check` and the start "
        "warn of 0 and of more than 8 KiB, which phones on bad networks do not reach.",
    )
    max_tunnels: int = setting(
        whole(0, _MAX_COUNT),
        10000,
        about="Open WebSockets and other upgraded connections; one more is 503. They do not count in "
        "`services.NAME.max_connections`. 0: no Upgrade is passed on.",
    )
    allow_fields: tuple[str, ...] = setting(
        listing(SPOOFABLE_FIELD),
        [],
        about="Of the [headers that the gateway drops](#headers-dropped-towards-services) those that clients "
        'may send, as in `["X-HTTP-Method-Override"]`.',
    )
    allow_trailers: tuple[str, ...] = setting(
        listing(TRAILER),
        [],
        about="Trailers of requests that are passed on; all others are dropped.",
    )
    max_buffered: int = setting(
        BUFFER,
        "256MiB",
        about="Response bytes that wait for HTTP/2 clients which do not read them, all clients together. "
        "Beyond it services are paused at once, and the client with the most buffered bytes loses its "
        "responses. At least 1 MiB; below 8 MiB ordinary downloads are cut, and `check` and the start warn.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSettings:
    """[shares]: percents that one client address and one tenant may hold of a service's connections, of tunnels and
    of client connections."""

    address: int = setting(
        PERCENT,
        "25%",
        about="The share that one client address (an IPv6 /64) may hold of each service's `max_connections`, "
        "of `requests.max_tunnels` and of `listen.max_connections`; at least 1. `check` and the start warn of "
        'fewer than 4, since one browser makes as many requests at once. `"100%"`: no bound.',
    )
    tenant: int = setting(
        PERCENT,
        "50%",
        about="The same for one tenant.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSettings:
    """[timeouts]: absolute timeouts in seconds. With 0, `exchange`, `tunnel` and `worker` are off, and `queue` lets
    no request wait."""

    head: float = setting(
        DEADLINE,
        "10s",
        about="From the first byte of a request to the end of its head, then 408; also from a new connection "
        "to its first byte.",
    )
    body: float = setting(
        DEADLINE,
        "30s",
        about="How far a body may fall behind `requests.min_rate`, and so also the longest pause in it; then "
        "408. While the service does not read the body, this time does not run.",
    )
    connect: float = setting(
        DEADLINE,
        "2s",
        about="To connect to a service; then 504. A name without a known address is looked up within this "
        "time; then 502.",
    )
    queue: float = setting(
        DURATION,
        "2s",
        about="How long a request waits for one of a service's `max_connections`, or for a place in its "
        "client's share of them; then 503. 0: none waits.",
    )
    response: float = setting(
        DEADLINE,
        "60s",
        about="From the end of a request to the head of the response; then 504.",
    )
    idle: float = setting(
        DEADLINE,
        "60s",
        about="Without progress of a body, in either direction; then the exchange is cut, or 504 if the "
        "response has not begun. Also how far a client may fall behind `requests.min_rate` in reading a "
        "response; one that keeps up is not cut.",
    )
    keepalive: float = setting(
        DURATION,
        "75s",
        about="An idle client connection; 0: it closes unless the next request follows at once.",
    )
    upstream_keepalive: float = setting(
        DURATION,
        "60s",
        about="An idle connection to a service; 0: none is kept.",
    )
    exchange: float = setting(
        DURATION,
        0,
        about="A whole exchange, then 504 or a cut response; 0: off. Not for tunnels.",
    )
    tunnel: float = setting(
        DURATION,
        "10m",
        about="Without a byte in either direction through a WebSocket or another tunnel; then both sides are "
        "reset. 0: off.",
    )
    drain: float = setting(
        DURATION,
        "30s",
        about="How long SIGTERM waits for exchanges in flight, and for clients to read their responses; the "
        "remaining ones then get 503 or are cut. 0: not at all.",
    )
    worker: float = setting(
        DURATION,
        "10s",
        about="With [several workers](operations.md#several-workers): how long the event loop of one may stand still "
        "before the supervisor kills it and starts another; at least 3 s and half of systemd's `WatchdogSec=`, and "
        "longer during a start, a reload and a drain. 0: never.",
    )
    linger: float = setting(
        DURATION,
        "2s",
        about="How long a request whose response was early is still read before the connection closes; again "
        "as long while the client reads the response. 0: not at all.",
    )
