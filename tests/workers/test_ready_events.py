"""Events that arrive together."""

from __future__ import annotations

import selectors
import socket
from functools import partial

from koder_gateway.workers.ready_events import handle_ready


def test_what_one_handler_has_ended_is_not_handled_by_another() -> None:
    """Whichever comes first."""
    selector = selectors.DefaultSelector()
    pairs = [socket.socketpair() for _ in range(2)]
    handled: list[int] = []

    def handle(own: int) -> None:
        handled.append(own)
        selector.unregister(pairs[1 - own][0])

    for number, (ours, theirs) in enumerate(pairs):
        selector.register(ours, selectors.EVENT_READ, partial(handle, number))
        theirs.send(b".")
    handle_ready(selector, 0)
    assert len(handled) == 1
    selector.close()
    for pair in pairs:
        for each in pair:
            each.close()


def test_a_registration_in_the_place_of_another_waits_for_an_event_of_its_own() -> None:
    selector = selectors.DefaultSelector()
    pairs = [socket.socketpair() for _ in range(2)]
    handled: list[str] = []

    def replace(own: int) -> None:
        handled.append("before")
        other = pairs[1 - own][0]
        selector.unregister(other)
        selector.register(other, selectors.EVENT_READ, partial(handled.append, "after"))

    for number, (ours, theirs) in enumerate(pairs):
        selector.register(ours, selectors.EVENT_READ, partial(replace, number))
        theirs.send(b".")
    handle_ready(selector, 0)
    assert handled == ["before"]
    selector.close()
    for pair in pairs:
        for each in pair:
            each.close()
