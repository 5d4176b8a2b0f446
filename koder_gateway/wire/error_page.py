"""Refusals as a page for the people who log in: what has happened, what they can do, and what to quote to a helper.

One small document without scripts, links, images or fonts from anywhere. It contains nothing that the request says
but the request id, whose characters are checked.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

from ..errors import Refusal

# What has happened, and what to do about it, for each code.
_AGAIN: Final = "Wait a minute, then try again."
_BACK: Final = "Go back to the application that you came from and start again."
_HELP: Final = "If it happens again, tell the people who run this service."
PAGE_TEXTS: Final = {
    "bad_request": ("Your browser's request could not be understood", _BACK),
    "tenant_required": (
        "This address belongs to no organization",
        "Use the address that your organization has given you.",
    ),
    "tenant_conflict": ("Two organizations were asked for at once", _BACK),
    "tenant_suspended": (
        "This organization's access is suspended",
        "Ask the people who manage it in your organization.",
    ),
    "not_allowed": (
        "You may not open this from here",
        "If you should have access, ask the people who run this service.",
    ),
    "no_route": ("This page does not exist", "Check the address, or go back to the application that you came from."),
    "unknown_tenant": (
        "This organization does not exist",
        "Check the address, or use the one that your organization has given you.",
    ),
    "method_not_allowed": ("This cannot be done here", _BACK),
    "request_timeout": ("Your request took too long to arrive", "Check your connection, then try again."),
    "body_too_large": ("What you have sent is too large", "Send a smaller file."),
    "uri_too_long": ("This address is too long", _BACK),
    "expectation_failed": ("Your request could not be understood", _BACK),
    "misdirected_request": (
        "There is no such site here",
        "Check the address, then open it in a new window.",
    ),
    "rate_limited": ("Too many attempts", _AGAIN),
    "head_too_large": (
        "Your browser has sent too much data",
        "Delete the cookies of this site in your browser, then try again.",
    ),
    "internal_error": ("Something went wrong on our side", f"{_AGAIN} {_HELP}"),
    "not_implemented": ("This cannot be done here", _BACK),
    "upstream_unreachable": ("This service is not available at the moment", _AGAIN),
    "upstream_untrusted": ("This service is not available at the moment", f"{_AGAIN} {_HELP}"),
    "upstream_invalid": ("Something went wrong on our side", f"{_AGAIN} {_HELP}"),
    "upstream_closed": ("This service is not available at the moment", _AGAIN),
    "overloaded": ("Too many people are using this service at the moment", _AGAIN),
    "draining": ("This service is just being restarted", _AGAIN),
    "upstream_timeout": ("This service takes too long to respond", _AGAIN),
}
_RETRY_AFTER: Final = re.compile(rb"^Retry-After: ([0-9]{1,9})\r$", re.MULTILINE)
_OTHER: Final = ("This did not work", _BACK)

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{margin:0;font:1.125rem/1.5 system-ui,sans-serif;background:#f6f6f4;color:#1c1c1c}"
    "main{box-sizing:border-box;max-width:36rem;margin:0 auto;padding:12vh 1.5rem 3rem;overflow-wrap:anywhere}"
    "h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0 1rem}"
    "p{margin:0 0 1rem}"
    "footer{margin-top:2.5rem;padding-top:1rem;border-top:1px solid #c9c9c4;font-size:.875rem;color:#595959}"
    "code{font-family:ui-monospace,monospace}"
    "@media(prefers-color-scheme:dark){body{background:#191a1b;color:#ededeb}"
    "footer{border-color:#45484a;color:#b4b6b8}}"
)
_HASH: Final = b64encode(sha256(_STYLE.encode()).digest())
# Nothing but the page's own style is loaded or run, wherever a browser shows it.
FIELDS: Final = (
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Security-Policy: default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none';"
    b" frame-ancestors 'none'\r\n"
    b"Referrer-Policy: no-referrer\r\n" % _HASH
)
_PAGE: Final = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="robots" content="noindex">\n'
    "<title>{heading}{of}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
    "{name}<h1>{heading}</h1>\n<p>{advice}</p>\n"
    "<footer>If you ask for help, quote this: <code>{code}</code> <code>{request_id}</code></footer>\n"
    "</main>\n</body>\n</html>\n"
)


def advice_until(fields: bytes) -> str:
    """What to do about a used-up limit, by the Retry-After (seconds) in these field lines; "" if it has none."""
    found = _RETRY_AFTER.search(fields)
    if found is None:
        return ""
    minutes = -(-int(found[1]) // 60)
    hours = -(-minutes // 60)
    if minutes < 60:
        time = "a minute" if minutes <= 1 else f"{minutes} minutes"
    else:
        time = "an hour" if hours == 1 else f"{hours} hours"
    return f"Wait {time}, then try again."


def error_page(refusal: Refusal, request_id: bytes, tenant: str, advice: str = "") -> bytes:
    """The page, in UTF-8, in the name of `tenant` ("" for none). `advice` is what to do, if it is not the code's."""
    heading, usual = PAGE_TEXTS.get(refusal.code, _OTHER)
    return _PAGE.format(
        heading=escape(heading),
        of=f" - {escape(tenant)}" if tenant else "",
        style=_STYLE,
        name=f"<p>{escape(tenant)}</p>\n" if tenant else "",
        advice=escape(advice or usual),
        code=escape(refusal.code),
        request_id=escape(request_id.decode("ascii")),
    ).encode()
