"""What the parts of an HTTP/2 connection and its streams ask of the connection, of its phases and of its streams."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IAddress

from ..downstream.ports import ClientConnection, ClientSite
from ..policy.certificates import TlsInfo
from ..wire.flood_budget import FloodBudget
from ..wire.http2_frames import Http2Error
from .frame_scheduler import FrameScheduler
from .receive_window import ConnectionWindow


class OpenStreams(Protocol):
    """The streams of a connection, as one of them sees the others."""

    def __len__(self) -> int:
        """How many are open."""

    def was_reset(self, number: int) -> None:
        """Remember a stream that was reset here."""

    def over(self, number: int, served: bool) -> None:
        """This stream is closed; `served`: its response was sent to the end."""


class Phases(Protocol):
    """Where a connection stands: `phase` of `phases`; `said_last` is the highest stream that its client has been told
    it will have a response to."""

    phase: int
    said_last: int

    def busy(self) -> None:
        """A stream is about to be opened where there was none."""

    def idle(self) -> None:
        """The last stream is over."""

    def turn_away(self, error: Http2Error) -> None:
        """Take no further request; those that were taken are served."""

    def watch_windows(self) -> None:
        """Something waits for windows: check from now on that the client opens them fast enough."""


class Connection(ClientConnection, Protocol):
    """One connection, as its parts and its streams see it. `windows_opened`: what is being read has opened some."""

    site: ClientSite
    transport: Any
    secured: TlsInfo | None
    out: FrameScheduler
    window: ConnectionWindow
    budget: FloodBudget
    windows_opened: bool
    streams: OpenStreams
    lifecycle: Phases

    @property
    def awaits_turn(self) -> bool:
        """Whether unread bytes only wait for this connection's turn."""

    def spend(self, cost: float) -> None:
        """The client has done what costs work and brings none. Raises Http2Error."""

    def replied(self, cost: float) -> None:
        """A frame that answers one of ours has come, or one that nothing asked for. Raises Http2Error."""

    def held_back(self) -> None:
        """A stream waits for a larger window: check it again soon."""

    def wake(self, deadline: float) -> None:
        """Expire no later than at this deadline."""

    def let_go(self) -> None:
        """Discard what is unread, and read on only to see how the client ends the connection."""

    def forget_reset(self) -> None:
        """The connection is about to end, or has."""

    def taking(self, grace: float) -> bool:
        """Whether the client takes what the kernel holds for it, as far as was seen in the last `grace` seconds."""

    def getPeer(self) -> IAddress:
        """The address that the connection comes from."""

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
