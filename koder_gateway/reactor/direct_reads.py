"""Data that a transport delivers directly to a function, if it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def deliver_directly(transport: Any, protocol: object, receiver: Callable[[bytes], None]) -> None:
    """Have `transport` call `receiver`, the present `dataReceived` of `protocol`, without a look at the protocol for
    each read; a transport that cannot, or that has another protocol before this one, goes on as it is."""
    if getattr(transport, "protocol", None) is protocol and hasattr(transport, "deliver_to"):
        transport.deliver_to(receiver)
