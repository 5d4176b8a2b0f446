"""What the tools ask of a running gateway, by its admin port."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from .config import Settings
from .config.faults import shown, without_secrets
from .listening.endpoint_strings import address_of, expand_shorthand, parse

# Seconds for a response, and the bytes that it may have.
_PATIENCE: Final = 10.0
_LARGEST: Final = 16 << 20
_EXAMPLE: Final = "--admin http://127.0.0.1:9100"


class AdminError(Exception):
    """The gateway cannot be asked; the message is one line that says what to do."""


def admin_of(settings: Settings) -> str:
    """The URL of the admin port that is configured. Raises AdminError."""
    text = settings.listen.admin_port
    source = settings.source or "the defaults"
    if not text:
        raise AdminError(f"{source}: listen.admin_port: is not set; name the gateway's admin port, as in {_EXAMPLE}")
    address = address_of(text)
    secure = parse(expand_shorthand(text)).kind not in ("tcp", "tcp6", "unix")
    if address is None or secure or address.port == "0":
        where = f"{source}: listen.admin_port: {shown(text)}"
        raise AdminError(f"{where} does not say by which URL to ask it; name it, as in {_EXAMPLE}")
    if address.kind == "unix":
        return f"unix:{address.port}"
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 (is asked, not bound)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def ask(admin: str, target: str) -> dict[str, Any]:
    """The JSON object at a path (and query) of an admin port. Raises AdminError."""
    status, body = _asked(admin, target)
    return _object(without_secrets(admin), target, status, body)


def ask_page(admin: str, target: str) -> tuple[int, str]:
    """The status and the text of a page of an admin port. Raises AdminError."""
    status, body = _asked(admin, target)
    return status, body.decode(errors="replace")


def _asked(admin: str, target: str) -> tuple[int, bytes]:
    """What an admin port responds: `http://HOST:PORT`, `https://…`, `HOST:PORT`, or `unix:PATH`. Raises
    AdminError."""
    url = without_secrets(admin)
    try:
        connection = _connection(admin)
    except ValueError:
        raise AdminError(f"--admin {shown(url)} is not the URL of an admin port; write it as in {_EXAMPLE}") from None
    try:
        connection.request("GET", target, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(_LARGEST + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AdminError(
            f"{url}: no gateway answers there ({reason}); start it with an admin port (listen.admin_port), or name"
            f" another one, as in {_EXAMPLE}"
        ) from None
    finally:
        connection.close()


def _object(url: str, target: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body) if len(body) <= _LARGEST else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AdminError(f"{url}: what answers there is no admin port of a gateway; see listen.admin_port")
    if status != 200:
        path = target.partition("?")[0]
        detail = document.get("detail", "it gives no reason")
        raise AdminError(f"{url}: {path} is refused with status {status}: {shown(detail)}")
    return document


def _connection(admin: str) -> http.client.HTTPConnection:
    """Never by a proxy: an admin port is for the inner network. Raises ValueError."""
    if admin.startswith("unix:"):
        return _UnixConnection(admin.removeprefix("unix:"))
    parts = urlsplit(admin if "://" in admin else f"http://{admin}")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(admin)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_PATIENCE)
    if parts.scheme != "http":
        raise ValueError(admin)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_PATIENCE)


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
