"""The request line: its method, its target, and their faults (RFC 9112 section 3)."""

from __future__ import annotations

from ..errors import METHOD_NOT_ALLOWED, NOT_IMPLEMENTED, URI_TOO_LONG, Refusal
from .request_head import RequestHead
from .request_syntax import KNOWN_METHODS, bad_request
from .target import CLEAN_PATH, SHORT_PATH, is_plain, origin_form, path_fault, query_fault, without_needless_escapes


def request_line_fault(head: RequestHead, max_target: int) -> Refusal | None:
    """The refusal of a syntactically valid request line."""
    if head.method not in KNOWN_METHODS:
        return METHOD_NOT_ALLOWED if head.method in (b"TRACE", b"CONNECT") else NOT_IMPLEMENTED
    target = head.target
    if len(target) > max_target:
        return URI_TOO_LONG
    if is_plain(target):
        return None
    head.plain = False
    if len(target) <= SHORT_PATH and CLEAN_PATH.fullmatch(target):
        return None
    return _target_fault(head)


def _target_fault(head: RequestHead) -> Refusal | None:
    target = head.target
    if not target.startswith(b"/"):
        if target == b"*" and head.method == b"OPTIONS":
            return None
        said = origin_form(head.method, target, head.host)
        if isinstance(said, Refusal):
            return said
        target = head.target = head.path = said.target
        head.https = said.scheme == b"https"
        if not head.host:
            head.host = said.authority
            head.lines = [b"Host: %b\r\n" % said.authority, *head.lines]
        if target == b"*":
            return None
    path, mark, query = target.partition(b"?")
    head.path = path
    head.plain = is_plain(path)
    if head.plain:
        fault = None
    else:
        fault = path_fault(path)
        if fault is None:
            head.path = without_needless_escapes(path)
    if fault is None and mark:
        fault = query_fault(query)
    return None if fault is None else bad_request(fault)
