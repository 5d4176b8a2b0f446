"""An exchange that waits for a step's decision (`pending`), between its client and the rest of its way."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Refusal
from .pending import FIRST_PART, Outcome, Pending
from .ports import BodySink, Client
from .states import ANSWER, ANSWERS, HELD


class AdmissionWait(BodySink):
    """Holds an exchange until a step has decided, as the `sink` of its client. Then the client gets its refusal, or
    `go_on` is called once, and finds in the client what has come of the body. An exchange that ends before that, by
    its client, its body or the gateway, cancels the decision.

    No more of the body is taken than the first part, if the decision wants that, and what the client's side has read
    before it stops.
    """

    __slots__ = ("_client", "_go_on", "_held", "_pending")

    streams = False
    connection = None

    def __init__(self, client: Client, go_on: Callable[[], None]) -> None:
        self._client = client
        self._go_on = go_on
        self._pending: Pending | None = None
        # Whether the client's body is paused.
        self._held = False

    def begin(self, pending: Pending) -> None:
        """Wait for this decision, which may be taken before this returns."""
        self._client.sink = self
        self._wait_for(pending)

    def _wait_for(self, pending: Pending) -> None:
        self._pending = pending
        pending.then(self._decided)
        client = self._client
        if self._pending is pending and (client.body or client.body_done):
            self._feed(pending)
        if self._pending is pending:
            self._regulate(pending)

    def _feed(self, pending: Pending) -> None:
        client = self._client
        if pending.wants_body:
            pending.body_came(client.body, client.body_done, client.now())

    def _regulate(self, pending: Pending) -> None:
        """Take the body only as far as the decision needs it."""
        client = self._client
        if client.body_done:
            return
        if not pending.wants_body or len(client.body) >= FIRST_PART:
            if not self._held:
                self._held = True
                client.pause_body()
            return
        if not client.body:
            client.ask_for_body()
        if self._held:
            self._held = False
            client.resume_body()

    def _decided(self, outcome: Outcome) -> None:
        client = self._client
        if self._pending is None:
            return
        self._pending = None
        if outcome is None:
            self._let_pass()
        elif isinstance(outcome, Refusal):
            client.sink = None
            client.refuse(outcome)
        else:
            self._wait_for(outcome)

    def _let_pass(self) -> None:
        client = self._client
        if self._held:
            self._held = False
            # What comes of the body at once is still collected here; it may also turn out to be broken.
            client.resume_body()
        if client.exchange.phase is HELD:
            client.sink = None
            self._go_on()

    # -- from the client (exchange.ports.BodySink)

    def body_room(self) -> int:
        """Nothing is passed on yet."""
        return 0

    def body_received(self, data: bytes) -> None:
        """More of the body."""
        self._client.body += data
        self._body_grew()

    def body_ended(self, trailers: list[bytes]) -> None:
        """The body is complete; the client has its trailers."""
        self._body_grew()

    def _body_grew(self) -> None:
        pending = self._pending
        if pending is not None:
            self._feed(pending)
            if self._pending is pending:
                self._regulate(pending)

    def client_leaves(self) -> None:
        """See `BodySink`: waiting has a deadline of its own."""

    def client_failed(self, event: str) -> None:
        """The client is gone, or its body is late, broken or too large."""
        self.abandon()
        client = self._client
        client.sink = None
        if client.exchange.move(event) is ANSWER:
            client.refuse(ANSWERS[event])

    def abandon(self) -> None:
        """The caller ends the exchange."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
