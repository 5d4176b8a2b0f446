"""What clients in Python need here: names below localhost lead to this machine (RFC 6761 section 6.3)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

_resolve = socket.getaddrinfo


def _here(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    return _resolve("127.0.0.1" if str(name).endswith(".localhost") else host, *arguments, **options)


@contextlib.contextmanager
def on_this_machine() -> Iterator[None]:
    """While it is open, such names are resolved, as browsers and curl do it; the C library mostly does not."""
    with patch("socket.getaddrinfo", _here):
        yield
