"""The plain port: redirects clients to https, and serves certbot's challenges to certificate authorities.

It is the main site with another dispatch. Connections, bounds, timeouts, policy, drain and counts are shared with the
main site, so that clients of both ports are counted together and a reload applies to both at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from ..downstream.ports import ClientRequest, ClientSite, NewConnection
from ..downstream.site import GatewaySite
from ..errors import METHOD_NOT_ALLOWED, METHODS, NO_ROUTE, Refusal
from ..policy.tenants import bare_host
from ..wire.rate_limited_log import Complaints
from .challenges import PREFIX, ChallengeError, read_challenge

_ALLOW: Final = b"Allow: " + b", ".join(METHODS) + b"\r\n"
_ONLY_READ: Final = Refusal(
    METHOD_NOT_ALLOWED.status,
    METHOD_NOT_ALLOWED.code,
    METHOD_NOT_ALLOWED.title,
    "A challenge can only be read by GET or HEAD.",
    fields=b"Allow: GET, HEAD\r\n",
)
_NO_CHALLENGE: Final = NO_ROUTE.because("There is no such challenge.")
_PLAIN_TEXT: Final = b"Content-Type: text/plain\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"


class RedirectSite(ServerFactory):
    """Responds with 308 to https (RFC 9110 section 15.4.9) for every host of `main`, and serves challenges from
    `webroot` (None: their paths are redirected too). It has the attributes of the main site, except for its own.

    The host alone decides. Hosts of suspended tenants are redirected too: the TLS port refuses them, and a plain
    response must not reveal to others which tenants are suspended. So is the bare base domain without a tenant.
    """

    noisy = False
    log = Logger()

    def __init__(self, main: GatewaySite, webroot: Path | None = None) -> None:
        self._main = main
        self.complaints = Complaints(main.clock, self.log.warn)
        self.webroot = webroot

    def __getattr__(self, name: str) -> Any:
        """An attribute of the main site, for the channels."""
        return getattr(self._main, name)

    def buildProtocol(self, addr: IAddress | None) -> NewConnection:  # type: ignore[override]
        """A channel for a new connection."""
        return self._main.channel_class(cast(ClientSite, self))

    def dispatch(self, request: ClientRequest) -> None:
        """Respond to a request, without waiting for its body."""
        head = request.exchange.head
        context = request.exchange.context
        if context.hsts:
            # A trusted proxy says that its client used TLS, but this port is for clients without.
            request.exchange.fields = request.exchange.fields.replace(context.hsts, b"")
        if self.webroot is not None and head.path.startswith(PREFIX):
            self._show(request, self.webroot)
        elif head.path == b"*":
            # `OPTIONS *` has no URL that could be redirected to.
            if context.misplaced and isinstance(context.tenant, Refusal):
                request.refuse(context.tenant)
            else:
                request.answer(204, b"No Content", _ALLOW, b"")
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

    def _show(self, request: ClientRequest, webroot: Path) -> None:
        head = request.exchange.head
        if head.method not in (b"GET", b"HEAD"):
            request.refuse(_ONLY_READ)
            return
        try:
            content = read_challenge(webroot, head.path)
        except ChallengeError as error:
            self.complaints.say(f"an ACME challenge could not be served: {error}")
            content = None
        if content is None:
            request.refuse(_NO_CHALLENGE)
        else:
            request.answer(200, b"OK", _PLAIN_TEXT, content)
