"""Which OAuth client a request comes from, by its own word: the user of HTTP Basic, or `client_id` in its form.

That is a claim: a service believes it once it has verified a secret, and a limit by it bounds what may be tried
against one client. So no spelling may give a request a bucket of its own: if services may read another client from
it, or none, it counts as NOBODY, which all such requests share. That is so

- with several Authorization headers, with Basic that is not exactly base64, and with an escape that is none;
- with a `client_id` in the query, in any spelling;
- with one that comes twice, that is spelled in another way (`Client_ID`, `client%5Bid`), or hides in another value;
- with Basic and a form that name different clients;
- with a body that is no plain form (`form_type`), since a service may read a client from JSON;
- with a `client_id` that is empty, longer than `LONGEST`, escaped twice, or of other characters than RFC 6749
  appendix A.1 allows, and with one that is not all within the first part of the form;
- without either. What a JWT says (`client_assertion`, RFC 7523) is not verified here, so it names nobody.

Of a `client_id` only letters and digits count, without case: some services compare without it, ignore spaces at the
end, or read a UUID with braces or without hyphens.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Final
from urllib.parse import unquote_to_bytes

from ..wire.request_head import RequestHead
from .form_type import is_plain_form

NOBODY: Final = b""
# Bytes of a client_id that is counted.
LONGEST: Final = 256
_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)
_ESCAPED: Final = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*+")
_SEPARATOR: Final = re.compile(rb"[&;]")
_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]+")
_NOTHING_COUNTED: Final = re.compile(rb"[^a-z0-9]+")
_UUID_URN: Final = b"urnuuid"
_NAME: Final = b"client_id"
_SKELETON: Final = b"clientid"
# How often a service may unescape the same text.
_TIMES: Final = 3


def by_head(head: RequestHead) -> bytes | None:
    """The client of a request; None where its form decides, which `by_form` reads."""
    user = _basic_user(head)
    if user == NOBODY or _names(head.target.partition(b"?")[2]):
        return NOBODY
    if not (head.chunked or head.length):
        return NOBODY if user is None else user
    return None if head.method == b"POST" and is_plain_form(head.fields) else NOBODY


def by_form(head: RequestHead, form: bytes, whole: bool) -> bytes:
    """The client of a request for which `by_head` has None; `form` is the first part of its body, or the `whole`."""
    user, named = _basic_user(head), _form_client(form, whole)
    if named is None:
        # Further on there could still be one.
        return user if whole and user is not None else NOBODY
    return named if user is None or user == named else NOBODY


def _basic_user(head: RequestHead) -> bytes | None:
    """The user of HTTP Basic, None without any, NOBODY if it can be read in two ways (RFC 6749 section 2.3.1)."""
    values = [value.strip(b" \t") for name, value in head.fields if name.lower() == b"authorization"]
    if len(values) > 1:
        return NOBODY
    if not values or b"basic" not in values[0].lower():
        return None
    match = _BASIC.fullmatch(values[0])
    if match is None:
        return NOBODY
    try:
        text = b64decode(match[1], validate=True)
    except ValueError:
        return NOBODY
    user, colon, _ = text.partition(b":")
    return _counted(user) if colon and b64encode(text) == match[1] else NOBODY


def _form_client(form: bytes, whole: bool) -> bytes | None:
    """The one `client_id` of a form, None without any, NOBODY if it can be read in two ways."""
    mentions = _names(form)
    if not mentions:
        return None
    pairs = form.split(b"&")
    if not whole:
        pairs.pop()
    found = [value for name, _, value in (pair.partition(b"=") for pair in pairs) if unquote_to_bytes(name) == _NAME]
    return _counted(found[0]) if len(found) == mentions == 1 else NOBODY


def _names(form: bytes) -> int:
    """How many names of a form, or of a query, some service could read as `client_id`."""
    for _ in range(_TIMES):
        if b"%" not in form:
            break
        form = unquote_to_bytes(form)
    return sum(_skeleton(pair.partition(b"=")[0]).startswith(_SKELETON) for pair in _SEPARATOR.split(form))


def _skeleton(text: bytes) -> bytes:
    return _NOTHING_COUNTED.sub(b"", text.lower())


def _counted(escaped: bytes) -> bytes:
    """What counts of a client_id, which is encoded as in a form."""
    value = unquote_to_bytes(escaped.replace(b"+", b" "))
    plain = _ESCAPED.fullmatch(escaped) and _PRINTABLE.fullmatch(value) and b"%" not in value
    return _skeleton(value).removeprefix(_UUID_URN) if plain and len(value) <= LONGEST else NOBODY
