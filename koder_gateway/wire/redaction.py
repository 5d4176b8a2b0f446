"""Paths and hosts without what may be a credential, for logs and traces."""

from __future__ import annotations

import re
from typing import Final

# A user before a host in a URL, anywhere in a path: after // or at the beginning a user, elsewhere in a segment a
# user with a password, as after http:/ in a target whose slashes were merged. Linear: it is tried only at the
# beginning of segments, and no part backtracks except for the last @.
_USER: Final = re.compile(rb"(?:(?:^|(?<=//))|(?<![^/])(?>[^/]*?(?::|%3[Aa])))[^/]*(?:@|%40)")
# A JSON Web Token (RFC 7519: its header is an object, in base64url), and the value of a parameter behind a segment,
# as in ;jsessionid=1.
_TOKEN: Final = re.compile(rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+(?:(?:\.|%2[Ee])[A-Za-z0-9_-]*+)+")
_PARAMETER: Final = re.compile(rb"((?:;|%3[Bb])[^/=;]*(?:=|%3[Dd]))[^/;]+")


def without_users(text: bytes) -> bytes:
    """A host or path without a user before a host, or a user with a password."""
    return _USER.sub(b"", text) if b"@" in text or b"%40" in text else text


def without_credentials(path: bytes) -> bytes:
    """A path without its query and fragment, and without what in it looks like a credential."""
    path = without_users(path.partition(b"?")[0].partition(b"#")[0])
    if b"eyJ" in path:
        path = _TOKEN.sub(b"(token)", path)
    return _PARAMETER.sub(rb"\1*", path) if b";" in path or b"%3" in path else path
