"""The protocols that the gateway speaks with its clients; its site gets them from here."""

from __future__ import annotations

from typing import Final

from ..downstream.ports import ClientProtocols
from ..http1.channel import channel_class
from ..http2.channel import Http2Channel

PROTOCOLS: Final = ClientProtocols(http1=channel_class, http2=Http2Channel)
