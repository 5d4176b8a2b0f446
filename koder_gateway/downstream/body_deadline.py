"""The time that a client has for the body of its request."""

from __future__ import annotations

import math

from .ports import ClientSite


class BodyDeadline:
    """Base of the channels that a body comes on, whose `deadline` (monotonic seconds) it keeps: a grace from the
    beginning, more with each byte, and no time passes while the service does not take the body.

    Subclasses say whether a body may be held and whether more of it is to come (`_may_hold`, `_expects_body`), and do
    what follows from either change (`_body_held`, `_body_released`).
    """

    site: ClientSite
    deadline: float
    # Whether the service does not take the body, and the seconds that were left when that began.
    _held: bool
    _held_for: float

    def _may_hold(self) -> bool:
        """Whether anything of the client is to come that a service takes."""
        return False

    def _expects_body(self) -> bool:
        """Whether more of the body is to come, so that the client's time runs."""
        return False

    def _body_held(self) -> None:
        """The service does not take the body any more."""

    def _body_released(self) -> None:
        """The service takes the body again."""

    def _renew_deadline(self, size: int) -> None:
        """So many bytes have come: more time for those that follow, but never more than the grace from now."""
        site = self.site
        self.deadline = min(self.deadline + size * site.seconds_per_byte, site.clock.now + site.timeouts.body)

    def hold_body(self) -> None:
        """The service does not take the body: the client's time stands still."""
        if not self._held and self._may_hold():
            self._held = True
            self._held_for = self.deadline - self.site.clock.now
            self.deadline = math.inf
            self._body_held()

    def release_body(self) -> None:
        """The service takes the body again."""
        if self._held:
            self._held = False
            if self._expects_body():
                self.deadline = self.site.clock.now + self._held_for
            self._body_released()
