"""The head of the response of a resource that is mounted in the tree, within a stock site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.web.http_headers import Headers

from ..downstream.stock_fields import is_ours


class MountedHeaders(Headers):
    """The head of a mounted resource's response, but for what is the gateway's to say, as on its own ports."""

    __slots__ = ("_drops_hsts", "_request")

    def __init__(self, request: Any, drops_hsts: bool) -> None:
        super().__init__()
        for name, values in request.responseHeaders.getAllRawHeaders():
            super().setRawHeaders(name, values)
        self._request = request
        self._drops_hsts = drops_hsts

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """What is sent: the stock request says here that it has begun to send in chunks, which is no field of the
        resource's."""
        yield from super().getAllRawHeaders()
        if self._request.chunked:
            yield b"Transfer-Encoding", [b"chunked"]

    def setRawHeaders(self, name: Any, values: Any) -> None:
        """Take these values for the field, unless it is the gateway's."""
        if not self._is_ours(name):
            super().setRawHeaders(name, values)

    def addRawHeader(self, name: Any, value: Any) -> None:
        """Take one more value for the field, unless it is the gateway's."""
        if not self._is_ours(name):
            super().addRawHeader(name, value)

    def _is_ours(self, name: Any) -> bool:
        lower = name.lower() if isinstance(name, bytes) else name.lower().encode("latin-1", "replace")
        return is_ours(lower, self._drops_hsts)
