"""One order from its beginning to its certificate, in a thread of its own.

Each step is kept before the next one is taken, so that the next process goes on where this one has ended: the key
before the order is sent, the order's URL once it has one, the certificate before the key is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from .authority import Authority, AuthorizationBody, ChallengeBody, OrderBody, challenge_fault
from .faults import Fault, OrderError, abandoned, broken, refused
from .issued import (
    Issued,
    IssuedError,
    certificate_request,
    challenge_certificate,
    is_of_kind,
    new_key,
    thumbprint_authorization,
    with_chain,
)
from .storage import Challenge, Storage, StorageError

Body = TypeVar("Body", OrderBody, AuthorizationBody)

# Seconds that an authority may take for an order.
_PATIENCE: Final = 300.0
# Seconds between two looks, longer each time; an authority may ask for more.
_FIRST_LOOK: Final = 1.0
_LATEST_LOOK: Final = 10.0
_LONGEST_LOOK: Final = 60.0
_PENDING: Final = ("pending", "ready", "processing", "valid")


class Journal(Protocol):
    """Whoever keeps the records and the pace of all orders. Each method raises StorageError."""

    def may_order(self, name: str) -> bool:
        """Count an order that is about to be sent; whether it may be."""

    def ordered(self, name: str, url: str) -> None:
        """Keep the URL of an order, "" if there is none any more."""

    def check(self, name: str) -> None:
        """Raises OrderError if the name is not wanted any more, or another gateway orders."""

    def wait(self, seconds: float) -> None:
        """Sleep. Raises OrderError if the process is to end."""


class Postponed(Exception):
    """No order may be sent now."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The order of a certificate for `name`. `url` is that of one which is under way, "" for none; `replaces` is the
    certificate that it renews (RFC 9773), "" for none."""

    name: str
    url: str
    replaces: str
    keys: str
    challenge: str


class OrderRun:
    """Runs orders by one conversation. `spread` is how many seconds it may take until each gateway answers a
    challenge."""

    def __init__(self, authority: Authority, storage: Storage, journal: Journal, spread: float = 0.0) -> None:
        self._authority = authority
        self._storage = storage
        self._journal = journal
        self._spread = spread

    def run(self, wish: Wish) -> Issued:
        """The certificate that has been put into use. Raises OrderError, and Postponed."""
        try:
            return self._run(wish, time.monotonic() + _PATIENCE)
        except StorageError as error:
            raise OrderError(broken(str(error), error.advice)) from None
        except IssuedError as error:
            words = f"what the authority sends cannot be used: {error}"
            raise OrderError(refused("", words, status=200, name=wish.name)) from None

    def _run(self, wish: Wish, deadline: float) -> Issued:
        name = wish.name
        url, order, key = self._resumed(wish) or self._begun(wish)
        # One that was gone on with may be ready, and the answer to its challenge still be there.
        unsettled = ("pending", "ready") if wish.url else ("pending",)
        for authorization in order.authorizations if order.status in unsettled else ():
            self._authorize(authorization, wish, deadline)
        order = self._until(
            lambda: self._authority.order(url, name), ("ready", "processing", "valid"), name, deadline
        )
        if order.status == "ready":
            self._journal.check(name)
            self._authority.finalize(order, certificate_request(name, key), name)
            order = self._until(lambda: self._authority.order(url, name), ("valid",), name, deadline)
        chain = self._authority.certificate(order.certificate, name)
        pem, issued = with_chain(name, key, chain, time.time())
        self._journal.check(name)
        self._storage.keep_certificate(name, pem)
        self._storage.forget_order_key(name)
        return issued

    def _resumed(self, wish: Wish) -> tuple[str, OrderBody, bytes] | None:
        """An order that was under way, if it can be gone on with."""
        if not wish.url:
            return None
        key = self._storage.order_key(wish.name)
        try:
            order, _ = self._authority.order(wish.url, wish.name)
        except OrderError as error:
            if error.fault.result != "rejected":
                raise
            # The authority has forgotten it.
            order = OrderBody()
        early = order.status in ("pending", "ready")
        if early and (key is None or not is_of_kind(key, wish.keys)):
            key = new_key(wish.keys)
            self._storage.keep_order_key(wish.name, key)
        if key is None or order.status not in _PENDING:
            self._journal.ordered(wish.name, "")
            return None
        return wish.url, order, key

    def _begun(self, wish: Wish) -> tuple[str, OrderBody, bytes]:
        """A new order, with a new key."""
        key = new_key(wish.keys)
        # Before the order: if there is no room for a key, there is none for a certificate.
        self._storage.keep_order_key(wish.name, key)
        self._journal.check(wish.name)
        if not self._journal.may_order(wish.name):
            raise Postponed
        url, order = self._authority.new_order(wish.name, wish.replaces)
        self._journal.ordered(wish.name, url)
        return url, order, key

    def _authorize(self, url: str, wish: Wish, deadline: float) -> None:
        """Answer the challenge of an authorization (RFC 8555 section 7.5), unless it is valid already."""
        body, _ = self._authority.authorization(url, wish.name)
        offered = next((each for each in body.challenges if each.type == wish.challenge), None)
        if body.status == "valid":
            if wish.url and offered is not None:
                self._storage.forget_challenge(self._answer(offered, wish))
            return
        if offered is None:
            kinds = ", ".join(sorted({each.type for each in body.challenges}))
            words = f"the authority offers no {wish.challenge} for {wish.name}, only {kinds or 'nothing'}"
            raise OrderError(Fault("rejected", "name", words, "choose another acme.challenge"))
        challenge = self._answer(offered, wish)
        self._storage.answer(challenge)
        try:
            if self._spread:
                self._journal.wait(self._spread)
            self._journal.check(wish.name)
            if offered.status in ("", "pending"):
                self._authority.accept(offered, wish.name)
            self._until(lambda: self._authority.authorization(url, wish.name), ("valid",), wish.name, deadline)
        finally:
            self._storage.forget_challenge(challenge)

    def _answer(self, offered: ChallengeBody, wish: Wish) -> Challenge:
        authorization = thumbprint_authorization(offered.token, self._authority.thumbprint)
        if wish.challenge == "http-01":
            return Challenge(offered.token, wish.name, authorization.encode())
        return Challenge("", wish.name, challenge_certificate(wish.name, authorization)[0])

    def _until(
        self,
        look: Callable[[], tuple[Body, float | None]],
        wanted: tuple[str, ...],
        name: str,
        deadline: float,
    ) -> Body:
        """An order or an authorization, once it has one of these states."""
        pause = _FIRST_LOOK
        while True:
            body, after = look()
            if body.status in wanted:
                return body
            if body.status not in ("pending", "processing", "ready"):
                raise OrderError(_ended(body, name))
            wait = pause if after is None else min(max(after, _FIRST_LOOK), _LONGEST_LOOK)
            pause = min(pause * 1.5, _LATEST_LOOK)
            if time.monotonic() + wait > deadline:
                words = f"the authority has not decided within {_PATIENCE / 60:g} minutes"
                raise OrderError(Fault("failed", "name", words, "wait: the order is gone on with"))
            self._journal.wait(wait)


def _ended(body: OrderBody | AuthorizationBody, name: str) -> Fault:
    """Why there will be no certificate."""
    if isinstance(body, OrderBody):
        return challenge_fault(body.error, name, f"the order is {body.status or 'gone'}")
    failed = next((each.error for each in body.challenges if each.error is not None), None)
    return challenge_fault(failed, name, f"the authorization is {body.status or 'gone'}")


def unwanted() -> OrderError:
    """What `Journal.check` raises."""
    return OrderError(abandoned())
