"""What a TLS layer asks of the transport below it, and what it only passes on."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol


class Layer(Protocol):
    """A protocol to the transport below, for a transport above it that knows when it is gone."""

    _gone = False

    def _write_below(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _abort_below(self) -> None:
        transport: Any = self.transport
        abort = getattr(transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            transport.loseConnection()

    def getPeer(self) -> Any:
        """The client's address."""
        transport: Any = self.transport
        return transport.getPeer()

    def getHost(self) -> Any:
        """The address that the client has connected to."""
        transport: Any = self.transport
        return transport.getHost()

    def getHandle(self) -> Any:
        """The handle of the transport below."""
        transport: Any = self.transport
        return transport.getHandle()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Set TCP_NODELAY where the transport below is TCP."""
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(enabled)

    def getTcpNoDelay(self) -> bool:
        """Whether TCP_NODELAY is set below."""
        transport: Any = self.transport
        return bool(transport.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Set SO_KEEPALIVE below."""
        transport: Any = self.transport
        transport.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether SO_KEEPALIVE is set below."""
        transport: Any = self.transport
        return bool(transport.getTcpKeepAlive())

    def pauseProducing(self) -> None:
        """Read no more from the client."""
        if not self._gone:
            transport: Any = self.transport
            transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read from the client again."""
        if not self._gone:
            transport: Any = self.transport
            transport.resumeProducing()
