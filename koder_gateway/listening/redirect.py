"""The plain port: sends clients to https, and shows ACME authorities the challenges of the gateway's own orders, and
what certbot has left for them.

It is the main site under another dispatch. Connections, bounds, deadlines, policy, drain and counts are the main
site's own, so that a client of either port is one of the same number and a reload is seen by both at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from ..downstream.ports import ClientRequest, ClientSite, NewConnection
from ..downstream.site import GatewaySite
from ..errors import METHOD_NOT_ALLOWED, NO_ROUTE, Refusal
from ..exchange.admission import ALLOW
from ..policy.tenants import bare_host
from ..wire.rate_limited_log import RateLimitedLog
from .challenges import PREFIX, ChallengeError, TokenPlace, read_challenge, read_own_challenge

_ONLY_READ: Final = Refusal(
    METHOD_NOT_ALLOWED.status,
    METHOD_NOT_ALLOWED.code,
    METHOD_NOT_ALLOWED.title,
    "A challenge can only be read by GET or HEAD.",
    fields=b"Allow: GET, HEAD\r\n",
)
_NO_CHALLENGE: Final = NO_ROUTE.because("There is no such challenge.")
_PLAIN_TEXT: Final = b"Content-Type: text/plain\r\n"


class RedirectSite(ServerFactory):
    """Answers 308 to https (RFC 9110 section 15.4.9) for every host of `main`, and challenges: those of the
    gateway's own orders in `own`, and those in `webroot`. With neither (None) they are redirected like the rest. It
    has the attributes of the main site, except for what is its own.

    The host alone decides. A suspended tenant's is still one of ours: what becomes of the request, TLS may say, and
    a plain answer tells nobody on the way which tenants are suspended. So is the bare base domain without a tenant.
    """

    noisy = False
    log = Logger()

    def __init__(self, main: GatewaySite, webroot: Path | None = None, own: TokenPlace | None = None) -> None:
        self._main = main
        self.fault_log = RateLimitedLog(main.clock, self.log.warn)
        self.webroot, self.own = webroot, own
        self.challenges = {"answered": 0, "unknown": 0, "faulty": 0}
        """What has become of requests for the challenges of the gateway's own orders."""

    def __getattr__(self, name: str) -> Any:
        """What a channel asks of its site."""
        return getattr(self._main, name)

    def buildProtocol(self, addr: IAddress | None) -> NewConnection:  # type: ignore[override]
        """A channel for a new connection."""
        return self._main.channel_class(cast(ClientSite, self))

    def dispatch(self, request: ClientRequest) -> None:
        """Answer a request. Its body is not waited for."""
        exchange = request.exchange
        head, context = exchange.head, exchange.context
        if exchange.refusal is not None:
            request.refuse(exchange.refusal)
            return
        if context.hsts:
            # A trusted proxy's client came over TLS, but this port is for those who do not.
            exchange.fields = exchange.fields.replace(context.hsts, b"")
        if head.path.startswith(PREFIX) and (self.own is not None or self.webroot is not None):
            self._show(request)
        elif head.path == b"*":
            # There is no URL for the whole server that could be redirected to.
            if context.misplaced and isinstance(context.tenant, Refusal):
                request.refuse(context.tenant)
            else:
                request.answer(204, b"No Content", ALLOW, b"")
        else:
            self._redirect(request)

    def _redirect(self, request: ClientRequest) -> None:
        context, head = request.exchange.context, request.exchange.head
        request.exchange.tenant = context.whose(head)
        if isinstance(context.tenant, Refusal):
            refusal = context.policy.tenants.host_refusal(head.host)
            if refusal is not None:
                request.refuse(refusal)
                return
        location = b"Location: https://%b%b\r\n" % (bare_host(head.host), head.target)
        request.answer(308, b"Permanent Redirect", location, b"")

    def _show(self, request: ClientRequest) -> None:
        head = request.exchange.head
        if head.method not in (b"GET", b"HEAD"):
            request.refuse(_ONLY_READ)
            return
        content = None if self.own is None else self._own_challenge(self.own, head.path)
        if content is None and self.webroot is not None:
            try:
                content = read_challenge(self.webroot, head.path)
            except ChallengeError as error:
                self._complain(error)
        if content is None:
            request.refuse(_NO_CHALLENGE)
        else:
            request.answer(200, b"OK", _PLAIN_TEXT, content)

    def _own_challenge(self, own: TokenPlace, path: bytes) -> bytes | None:
        try:
            content = read_own_challenge(own, path)
        except ChallengeError as error:
            self._complain(error)
            self.challenges["faulty"] += 1
            return None
        self.challenges["unknown" if content is None else "answered"] += 1
        return content

    def _complain(self, error: ChallengeError) -> None:
        self.fault_log.warn(f"an ACME challenge could not be served: {error}")
