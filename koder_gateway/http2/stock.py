"""What `twisted.web.http.Request` asks of its channel, so that any `IResource` can answer on an HTTP/2 stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from ..downstream.ports import ClientSite
from ..downstream.stock_fields import sent_fields
from ..exchange.ports import Producer
from ..policy.certificates import TlsInfo
from ..wire.hpack import encode_field, encode_lines, encode_status
from .ports import Connection
from .request import Http2Request
from .send_window import SendWindow


class StockStream:
    """The half of a stream that mostly stock requests use."""

    connection: Connection
    site: ClientSite
    request: Http2Request | None
    send_window: SendWindow
    factory: Any = None

    def write(self, data: bytes) -> None:
        """Send more of a stock response's body."""
        if data:
            self.send_window.send_body(data, False)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Send a stock response's head with the fields that every response of the gateway carries."""
        request = self.request
        if request is None:
            return
        parts = [encode_status(int(code))]
        for name, value in sent_fields(headers, request.exchange.drops_hsts):
            parts.append(encode_field(name.lower(), value.replace(b"\r\n", b" ")))
        parts.append(encode_lines(self.site.date_line + request.exchange.fields))
        self.send_window.send_head(b"".join(parts), False)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Producer, streaming: bool) -> None:
        """Pause and resume `producer` as the client takes the response. A pull producer (not streaming) is asked for
        more."""
        self.send_window.follow(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self.send_window.unfollow()

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""
        return self.connection.getPeer()

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        return self.connection.getHost()

    def isSecure(self) -> bool:
        """HTTP/2 is only spoken over TLS here."""
        return True

    def secured(self) -> TlsInfo | None:
        """What TLS has established with the client."""
        return self.connection.secured
