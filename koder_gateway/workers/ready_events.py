"""The events that a selector has found at once, each handed to its handler."""

from __future__ import annotations

from selectors import BaseSelector


def handle_ready(selector: BaseSelector, timeout: float | None) -> None:
    """Wait for events, `timeout` seconds at most, and call the handlers with which they were registered (as `data`).

    A handler may end what another event is about, as SIGCHLD and the end of its channel are both about one worker:
    events of what is no longer registered are dropped.
    """
    for key, _ in selector.select(timeout):
        if selector.get_map().get(key.fd) is key:
            key.data()
