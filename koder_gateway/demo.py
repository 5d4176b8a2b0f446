"""The demo: five stand-in services in this process, the gateway's configuration for them, and lines to try.

Each service answers JSON that shows what it received, so that a person sees what the gateway adds and takes
away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site

BASE_DOMAIN = "id.localhost"
ORIGIN = "https://app.example.com"
# (slug, status): two that are served and one that is not.
TENANTS = (("acme", "active"), ("globex", "active"), ("closed", "suspended"))
SERVICES = ("identity", "auth", "oauth2", "session", "admin")

# Longer than the gateway keeps a connection, so that it is the one to close it, never in mid-request.
_KEEP_ALIVE = 300
_TICK = 1.0
_MAX_BODY = 1 << 16
# What the gateway sets or passes on and a person wants to see.
_SHOWN = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "traceparent")

Answer = tuple[int, Mapping[str, Any]]


class DemoServices:
    """Five services on free loopback ports, from `start` to `stop`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._streams: set[_Stream] = set()

    def start(self) -> Deferred[dict[str, str]]:
        """Listen; fires with each service's URL by its name. Fails with CannotListenError."""
        waiting = [self._listen(name) for name in SERVICES]
        opened = gatherResults(waiting, consumeErrors=True)
        return opened.addCallback(lambda urls: dict(zip(SERVICES, urls, strict=True)))

    def stop(self) -> Deferred[None]:
        """Stop listening and end the event streams; fires when the ports are free."""
        for stream in list(self._streams):
            stream.end()
        ports, self._ports = self._ports, []
        closing = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults(closing).addCallback(lambda _: None)

    def site(self, name: str) -> Site:
        """The service called `name`, not yet listening."""
        return _QuietSite(_Service(name, _ANSWERS[name], self._stream), reactor=self._reactor)

    def _listen(self, name: str) -> Deferred[str]:
        endpoint: Any = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
        listening: Deferred[IListeningPort] = endpoint.listen(self.site(name))
        return listening.addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> str:
        self._ports.append(port)
        address: Any = port.getHost()
        return f"http://{address.host}:{address.port}"

    def _stream(self, request: Any) -> None:
        _Stream(request, self._reactor, self._streams)


def demo_settings(urls: Mapping[str, str]) -> str:
    """The gateway's configuration (TOML) for these services; its registry is `tenants.toml` beside it."""
    services = "\n".join(f'{name} = "{url}"' for name, url in urls.items())
    return (
        f'[tenants]\nbase_domain = "{BASE_DOMAIN}"\nregistry = "tenants.toml"\n\n'
        f"[services]\n{services}\n\n"
        f'[cors]\norigins = ["{ORIGIN}"]\n'
    )


def demo_tenants() -> str:
    """The demo's tenants (TOML)."""
    return "\n".join(f'[[tenant]]\nslug = "{slug}"\nstatus = "{status}"\n' for slug, status in TENANTS)


def write_demo(folder: Path, urls: Mapping[str, str]) -> Path:
    """Write the demo's configuration and tenants into a folder; returns the configuration's path."""
    (folder / "tenants.toml").write_text(demo_tenants())
    path = folder / "koder-gateway.toml"
    path.write_text(demo_settings(urls))
    return path


def curl_lines(port: int, *, secure: bool = True) -> list[str]:
    """Three lines for a shell that show the demo at work through the gateway's port.

    They name no address: curl takes every name under localhost for this machine (RFC 6761 section 6.3).
    """
    curl, scheme = ("curl -sk", "https") if secure else ("curl -s", "http")
    preflight = f"-X OPTIONS -H 'Origin: {ORIGIN}' -H 'Access-Control-Request-Method: POST'"
    acme, globex = (f"{scheme}://{slug}.{BASE_DOMAIN}:{port}" for slug in ("acme", "globex"))
    return [
        f"{curl} {acme}/v1/users",
        f"{curl} {globex}/.well-known/openid-configuration",
        f"{curl} -i {preflight} {acme}/v1/users",
    ]


class _QuietSite(Site):
    """A site that keeps no log of its own: the gateway's access log shows every request already."""

    noisy = False
    displayTracebacks = False

    def __init__(self, resource: IResource, reactor: Any) -> None:
        super().__init__(resource, reactor=reactor, timeout=_KEEP_ALIVE, parsePOSTFormSubmission=False)

    def log(self, request: Any) -> None:
        """Write nothing."""


class _Service(Resource):
    """One stand-in service: asks its function for an answer and adds what it received."""

    isLeaf = True

    def __init__(self, name: str, answer: Callable[[Any], Answer], stream: Callable[[Any], None]) -> None:
        super().__init__()
        self._name = name
        self._answer = answer
        self._stream = stream

    def render(self, request: Any) -> bytes | int:
        """See IResource."""
        if self._name == "identity" and request.path == b"/v1/users/events" and request.method == b"GET":
            self._stream(request)
            return NOT_DONE_YET
        status, body = self._answer(request)
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        if status == 401:
            request.setHeader(b"www-authenticate", b"Bearer")
        document = dict(body) if _is_document(request) else {**_received(self._name, request), **body}
        encoded = json.dumps(document, indent=2).encode() + b"\n"
        if request.method == b"HEAD":
            request.setHeader(b"content-length", b"%d" % len(encoded))
            return b""
        return encoded


class _Stream:
    """Server-sent events for one request, a tick a second, until the client leaves or the demo stops."""

    def __init__(self, request: Any, reactor: Any, others: set[_Stream]) -> None:
        self._request = request
        self._others = others
        self._count = 0
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor
        others.add(self)
        request.setHeader(b"content-type", b"text/event-stream")
        request.setHeader(b"cache-control", b"no-store")
        request.notifyFinish().addErrback(self._gone)
        self._ticks.start(_TICK)

    def end(self) -> None:
        """Finish the answer."""
        self._stop()
        self._request.finish()

    def _tick(self) -> None:
        self._count += 1
        event = json.dumps({"tick": self._count, "tenant": _header(self._request, "x-tenant-id")})
        self._request.write(f"event: tick\nid: {self._count}\ndata: {event}\n\n".encode())

    def _gone(self, reason: Failure) -> None:
        self._stop()

    def _stop(self) -> None:
        self._others.discard(self)
        if self._ticks.running:
            self._ticks.stop()


def _header(request: Any, name: str) -> str | None:
    value = request.getHeader(name)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _present(request: Any, names: Iterable[str]) -> dict[str, str]:
    return {name: value for name in names if (value := _header(request, name)) is not None}


def _path(request: Any) -> str:
    return str(request.path, "latin-1")


def _is_document(request: Any) -> bool:
    """Whether the answer is one that clients read by a specification, to which nothing is added."""
    return bool(request.path.startswith(b"/.well-known/"))


def _received(service: str, request: Any) -> dict[str, Any]:
    """What a service sees of a request that came through the gateway."""
    return {
        "service": service,
        "method": request.method.decode("latin-1"),
        "path": _path(request),
        "host": _header(request, "host"),
        "tenant": _header(request, "x-tenant-id"),
        "request_id": _header(request, "x-request-id"),
        "forwarded": _present(request, _SHOWN),
    }


def _sent(request: Any) -> dict[str, Any]:
    """The JSON object of a request's body; empty for anything else."""
    data = request.content.read(_MAX_BODY) if request.content is not None else b""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _identity(request: Any) -> Answer:
    users = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}]
    if request.method == b"POST":
        return 201, {"created": {"id": 3, "name": str(_sent(request).get("name", "Edith"))}}
    number = _path(request).removeprefix("/v1/users").strip("/")
    if not number:
        return 200, {"users": users}
    found = [user for user in users if str(user["id"]) == number]
    return (200, {"user": found[0]}) if found else (404, {"error": "no such user; there are 1 and 2"})


def _auth(request: Any) -> Answer:
    if request.method != b"POST":
        return 200, {"hint": 'POST {"name": "ada", "password": "demo"} to log in'}
    sent = _sent(request)
    if sent.get("password") != "demo":
        return 401, {"error": 'wrong password; every demo user\'s is "demo"'}
    return 200, {"flow": "complete", "user": str(sent.get("name", "")), "next": "/v1/sessions"}


def _oauth2(request: Any) -> Answer:
    issuer = f"https://{_header(request, 'host')}"
    if request.path == b"/.well-known/openid-configuration":
        return 200, {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oauth/v2/authorize",
            "token_endpoint": f"{issuer}/oauth/v2/token",
            "userinfo_endpoint": f"{issuer}/oidc/v1/userinfo",
            "jwks_uri": f"{issuer}/oauth/v2/keys",
            "end_session_endpoint": f"{issuer}/oidc/v1/end_session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
    if request.path.startswith(b"/oidc/v1/userinfo") and _header(request, "authorization") is None:
        return 401, {"error": "a bearer token is needed; any will do here"}
    return 200, {"issuer": issuer}


def _session(request: Any) -> Answer:
    return 200, {"sessions": [] if request.method == b"DELETE" else [{"id": "s-1", "user": 1}]}


def _admin(request: Any) -> Answer:
    return 200, {"tenants": [{"slug": slug, "status": status} for slug, status in TENANTS]}


_ANSWERS: dict[str, Callable[[Any], Answer]] = {
    "identity": _identity,
    "auth": _auth,
    "oauth2": _oauth2,
    "session": _session,
    "admin": _admin,
}
