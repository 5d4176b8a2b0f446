"""Refusals in their three shapes: every refusal there is, and any detail."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway import errors
from koder_gateway.errors import CODES, Refusal
from koder_gateway.wire.error_page import FIELDS, PAGE_TEXTS, advice_until
from koder_gateway.wire.oauth_error import OAUTH_ERRORS
from koder_gateway.wire.refusal_writer import _BOUND, OWN_FIELDS, RefusalWriter

ALL = {name: value for name, value in vars(errors).items() if isinstance(value, Refusal)}
DOCS = "https://docs.koder.dev/gateway/errors/"
# RFC 6749 sections 4.1.2.1 and 5.2.
OAUTH = {"invalid_request", "access_denied", "server_error", "temporarily_unavailable"}


def details(refusal: Refusal, kind: str) -> dict[str, object]:
    return {
        "type": kind,
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
        "detail": refusal.detail,
        "request_id": "r-1.x_Y",
    }


@pytest.mark.parametrize("refusal", ALL.values(), ids=ALL)
class TestEveryRefusal:
    def test_is_a_problem(self, refusal: Refusal) -> None:
        fields, body = RefusalWriter().problem.write(refusal, b"r-1.x_Y")
        assert fields == b"Content-Type: application/problem+json\r\n" + refusal.fields
        assert json.loads(body) == details(refusal, DOCS + refusal.code)

    def test_is_a_problem_without_documentation(self, refusal: Refusal) -> None:
        body = RefusalWriter("").problem.write(refusal, b"r-1.x_Y")[1]
        assert json.loads(body) == details(refusal, f"urn:koder-gateway:{refusal.code}")

    def test_is_an_oauth_error_and_a_problem(self, refusal: Refusal) -> None:
        fields, body = RefusalWriter().oauth(None).write(refusal, b"r-1.x_Y")
        assert fields == b"Content-Type: application/json\r\n" + refusal.fields
        document = json.loads(body)
        assert document["error"] in OAUTH
        assert document["error_description"] == refusal.detail.replace('"', "'")
        assert document["error_uri"] == DOCS + refusal.code
        oauth = {"error", "error_description", "error_uri"}
        rest = {name: value for name, value in document.items() if name not in oauth}
        assert rest == details(refusal, DOCS + refusal.code)

    def test_is_an_oauth_error_without_documentation(self, refusal: Refusal) -> None:
        document = json.loads(RefusalWriter("").oauth(None).write(refusal, b"r1")[1])
        assert "error_uri" not in document
        assert document["type"] == f"urn:koder-gateway:{refusal.code}"

    def test_is_a_page(self, refusal: Refusal) -> None:
        fields, body = RefusalWriter().page.write(refusal, b"r-1.x_Y", b"koder")
        assert fields == FIELDS + refusal.fields
        page = Page()
        page.feed(body.decode())
        heading, advice = PAGE_TEXTS[refusal.code]
        assert page.texts["title"] == f"{heading} - koder"
        assert page.texts["h1"] == heading
        assert {"koder", advice} <= set(page.paragraphs)
        assert f"{refusal.code} r-1.x_Y" in page.texts["footer"]
        assert page.attributes["html"] == [("lang", "en")]


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order, none loads or runs anything."""

    VOID = ("meta",)
    ALLOWED = frozenset(("html", "head", "meta", "title", "style", "body", "main", "p", "h1", "footer", "code"))

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.paragraphs: list[str] = []
        self.attributes: dict[str, list[tuple[str, str | None]]] = {}
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.ALLOWED, tag
        assert all(name in ("lang", "charset", "name", "content") for name, _ in attrs), attrs
        self.attributes[tag] = attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "p":
            self.paragraphs.append(data)
        for tag in self._open:
            self.texts[tag] = self.texts.get(tag, "") + data


def test_the_tables_have_every_code() -> None:
    assert tuple(sorted(OAUTH_ERRORS)) == CODES
    assert tuple(sorted(PAGE_TEXTS)) == CODES


def test_a_code_that_is_in_no_table() -> None:
    unknown = errors.BAD_REQUEST.because("Mine.")
    unknown = Refusal(409, "mine", "Conflict", unknown.detail)
    assert json.loads(RefusalWriter().oauth(None).write(unknown, b"r1")[1])["error"] == "invalid_request"
    assert b"<h1>This did not work</h1>" in RefusalWriter().page.write(unknown, b"r1", b"")[1]
    broken = Refusal(507, "mine", "Insufficient Storage", "Mine.")
    assert json.loads(RefusalWriter().oauth(None).write(broken, b"r1")[1])["error"] == "server_error"


@given(st.text())
def test_any_detail_is_escaped(detail: str) -> None:
    refusal = errors.NO_ROUTE.because(detail)
    assert json.loads(RefusalWriter().problem.write(refusal, b"r1")[1])["detail"] == detail
    document = json.loads(RefusalWriter().oauth(None).write(refusal, b"r1")[1])
    assert document["detail"] == detail
    # RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E.
    assert all(" " <= character <= "~" and character not in '"\\' for character in document["error_description"])


def test_a_page_of_nobody_in_particular() -> None:
    page = Page()
    page.feed(RefusalWriter().page.write(errors.NO_ROUTE, b"r1", b"", "Look <there>.")[1].decode())
    assert page.texts["title"] == "This page does not exist"
    assert page.paragraphs == ["Look <there>."]


@pytest.mark.parametrize(
    ("seconds", "time"),
    [
        (0, "a minute"),
        (60, "a minute"),
        (61, "2 minutes"),
        (3540, "59 minutes"),
        (3541, "an hour"),
        (3600, "an hour"),
        (3601, "2 hours"),
        (86400, "24 hours"),
    ],
)
def test_a_page_says_how_long_to_wait(seconds: int, time: str) -> None:
    fields = b'RateLimit: "few";r=0;t=9\r\nRetry-After: %d\r\nVary: Origin\r\n' % seconds
    assert advice_until(fields) == f"Wait {time}, then try again."


def test_without_a_time_a_page_says_none() -> None:
    assert advice_until(b"X-Retry-After: 7\r\nRetry-After: soon\r\n") == ""


def test_a_page_may_load_its_own_style_alone() -> None:
    from base64 import b64encode
    from hashlib import sha256

    body = RefusalWriter().page.write(errors.NO_ROUTE, b"r1", b"koder")[1]
    style = body.partition(b"<style>")[2].partition(b"</style>")[0]
    wanted = b"default-src 'none'; style-src 'sha256-%b';" % b64encode(sha256(style).digest())
    (policy,) = [line for line in FIELDS.split(b"\r\n") if line.startswith(b"Content-Security-Policy: ")]
    assert policy.partition(b": ")[2].startswith(wanted)


@pytest.mark.parametrize(
    ("refusal", "authorization", "line"),
    [
        (errors.BAD_REQUEST, b"Bearer abc", b'Bearer error="invalid_request", '),
        (errors.BAD_REQUEST, b"bearer abc", b'Bearer error="invalid_request", '),
        (errors.BAD_REQUEST, b"DPoP abc", b'DPoP error="invalid_request", '),
        (errors.BAD_REQUEST, b"Basic abc", None),
        (errors.BAD_REQUEST, b"", None),
        (errors.BAD_REQUEST, None, None),
        (errors.NOT_ALLOWED, b"Bearer abc", None),
        (errors.RATE_LIMITED, b"Bearer abc", None),
    ],
)
def test_challenges(refusal: Refusal, authorization: bytes | None, line: bytes | None) -> None:
    """RFC 6750 section 3.1: of a malformed request with an access token, and of no other."""
    fields = RefusalWriter().oauth(authorization).write(refusal.because('A "quoted" detail.'), b"r1")[0]
    wanted = b"" if line is None else b"WWW-Authenticate: %berror_description=\"A 'quoted' detail.\"\r\n" % line
    assert fields == b"Content-Type: application/json\r\n" + refusal.fields + wanted


def test_details_made_for_one_request_are_not_kept_for_ever() -> None:
    writer = RefusalWriter()
    for number in range(1000):
        refusal = errors.BAD_REQUEST.because(f"number {number}")
        writer.problem.write(refusal, b"r1")
        writer.oauth(None).write(refusal, b"r1")
    assert len(writer.problem.known) == len(writer.oauth(None).known) == _BOUND
    assert json.loads(writer.problem.write(errors.NO_ROUTE, b"r2")[1])["request_id"] == "r2"


def test_what_every_response_has() -> None:
    assert OWN_FIELDS == b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
