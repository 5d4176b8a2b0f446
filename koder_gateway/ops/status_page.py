"""The status page: one document with its style and script inside, which shows `/status` as it changes.

Nothing is fetched but `/status`, and the Content-Security-Policy allows nothing else: names of tenants, services and
certificates are on the page, and the script writes them as text.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

from .admin import AdminResponse

_TYPE: Final = b"text/html; charset=utf-8"
_FIELDS: Final = (
    b"Content-Security-Policy: default-src 'none'; script-src '%b'; style-src '%b'; connect-src 'self';"
    b" img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    b"Referrer-Policy: no-referrer\r\n"
)


def status_page(ready: bool) -> AdminResponse:
    """The page; the status says whether the gateway is ready, for balancers that probe it as a browser would."""
    return AdminResponse(200 if ready else 503, _TYPE, *_PAGE)


def _assembled() -> tuple[bytes, bytes]:
    """The document, and the fields that allow its own style and script alone."""
    folder = files("koder_gateway.ops") / "page"
    page, style, script = (
        (folder / name).read_bytes().strip() for name in ("status.html", "status.css", "status.js")
    )
    page = page.replace(b"<style></style>", b"<style>%b</style>" % style)
    page = page.replace(b"<script></script>", b"<script>%b</script>" % script)
    return page + b"\n", _FIELDS % (_hash(script), _hash(style))


def _hash(text: bytes) -> bytes:
    return b"sha256-" + b64encode(sha256(text).digest())


_PAGE: Final = _assembled()
