"""A request that is only explained: from what a person writes to the head that a gateway would read."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..wire.request_head import RequestHead
from ..wire.request_reader import RequestReader
from ..wire.request_syntax import oversized
from ..wire.unread_head import known_of


@dataclass(frozen=True, slots=True)
class ExplainedRequest:
    """A request as a client would send it: `headers` are whole lines, `peer` is the address that it comes from.
    `data` is its form, None for a request without a body."""

    method: str
    url: str
    headers: tuple[str, ...]
    peer: str
    data: str | None = None

    @property
    def body(self) -> bytes:
        """Its body on the wire."""
        return (self.data or "").encode("utf-8", "surrogateescape")

    @property
    def secure(self) -> bool:
        """Whether it comes over TLS."""
        return self.url.lower().startswith("https:")

    @property
    def host(self) -> bytes:
        """The host of its URL, by which the client asks for a certificate."""
        return urlsplit(self.url).netloc.encode("utf-8", "surrogateescape")

    def raw(self) -> bytes:
        """The head that it would have on the wire."""
        # The target exactly as typed: `urlsplit` must not normalise what the gateway would examine.
        host = urlsplit(self.url).netloc
        target = self.url.partition("://")[2][len(host) :] or "/"
        if not target.startswith("/"):
            target = "/" + target
        lines = [f"{self.method} {target} HTTP/1.1"]
        if not self._has("host"):
            lines.append(f"Host: {host}")
        if self.data is not None:
            if not self._has("content-type"):
                lines.append("Content-Type: application/x-www-form-urlencoded")
            if not self._has("content-length") and not self._has("transfer-encoding"):
                lines.append(f"Content-Length: {len(self.body)}")
        return ("\r\n".join([*lines, *self.headers]) + "\r\n\r\n").encode("utf-8", "surrogateescape")

    def _has(self, name: str) -> bool:
        return any(header.lower().startswith(f"{name}:") for header in self.headers)

    def head(self, reader: RequestReader, max_head: int) -> RequestHead:
        """The head as a gateway with this reader and this bound reads it."""
        raw = self.raw()
        head = reader.read(raw)
        if len(raw) <= max_head:
            return head
        # As in the channel: of a head over the limit only little is read.
        unread = RequestHead(b"", b"", head.minor, [])
        unread.host, unread.origin, unread.page = known_of(raw[:max_head])
        unread.refusal = oversized(raw, reader.max_line)
        return unread


def explained_request(
    method: str | None, url: str, headers: Sequence[str], peer: str, data: str | None = None
) -> ExplainedRequest:
    """The request that somebody has written. Without a `method` it is POST if there is a form, else GET. The
    ValueError says what is wrong with it, and what would be right."""
    wanted = f'"{url}" is not a URL; write it as in "https://acme.id.koder.dev/v1/users"'
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("the URL has a user in it, which no client sends as part of a URL; leave it out")
    try:
        ipaddress.ip_address(peer)
    except ValueError:
        raise ValueError(f'--from "{peer}" is not an address; write one as in "203.0.113.7"') from None
    method = method or ("GET" if data is None else "POST")
    return ExplainedRequest(method, url, tuple(headers), peer, data)
