"""What `twisted.web.http.Request` asks of its channel, so that any `IResource` can answer on a gateway channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IAddress, ISSLTransport
from twisted.web.http_headers import Headers

from ..downstream.ports import ClientSite
from ..downstream.stock_fields import sent_fields
from ..policy.certificates import TlsInfo
from .request import Http1Request


class StockChannel:
    """The half of a channel that only stock requests use. Subclasses are Twisted protocols."""

    transport: Any
    site: ClientSite
    request: Http1Request | None
    keep_alive: bool
    factory: Any = None
    _secured: TlsInfo | None = None

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send a stock response's head with the fields that every response of the gateway carries."""
        request = self.request
        if request is None:
            return
        framed = request.chunked or headers.hasHeader(b"content-length")
        if not framed and request.method != b"HEAD" and code not in (b"204", b"304"):
            self.keep_alive = False
        lines = [b"HTTP/1.1 %b %b\r\n" % (code, reason)]
        lines += [b"%b: %b\r\n" % field for field in sent_fields(headers, request.exchange.drops_hsts)]
        if request.chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines += (self.site.date_line, request.exchange.fields)
        if not self.keep_alive:
            lines.append(b"Connection: close\r\n")
        elif not request.exchange.head.minor:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.transport.write(b"".join(pieces))

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        return self.transport.getHost()  # type: ignore[no-any-return]

    def isSecure(self) -> bool:
        """Whether the client speaks TLS with the gateway."""
        return bool(ISSLTransport.providedBy(self.transport))

    def secured(self) -> TlsInfo | None:
        """What TLS has established with the client, once its handshake is complete; None without TLS."""
        known = self._secured
        if known is None:
            known = self._secured = self.site.secured(self.transport)
        return known
