"""Which OAuth client a request comes from: what every service reads alike, and no spelling that evades a limit."""

from __future__ import annotations

from base64 import b64encode
from typing import Final
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.client_id import LONGEST, NOBODY, by_form, by_head
from koder_gateway.tree.compose import make_reader
from koder_gateway.wire.request_head import RequestHead
from tests.kit.memory import request, settings_with

READER = make_reader(settings_with())
FORM: Final = b"Content-Type: application/x-www-form-urlencoded"


def asked(*lines: bytes, method: bytes = b"POST", target: bytes = b"/oauth/v2/token", size: int = 40) -> RequestHead:
    framing = (b"Content-Length: %d" % size,) if size else ()
    head = READER.read(request(method, target, *lines, *framing))
    assert head.refusal is None
    return head


def basic(user: bytes, password: bytes = b"secret") -> bytes:
    return b"Authorization: Basic " + b64encode(user + b":" + password)


def client(body: bytes, *lines: bytes, whole: bool = True) -> bytes:
    """The client of a form."""
    head = asked(FORM, *lines, size=len(body) or 1)
    assert by_head(head) is None
    return by_form(head, body, whole)


# -- HTTP Basic


@pytest.mark.parametrize(
    "line",
    [
        basic(b"My-App"),
        basic(b"my%2dapp"),
        basic(b"%6dy-app"),
        basic(b"my+app"),
        basic(b"my-app "),
        basic(b"{myapp}"),
        b"authorization:   bAsIc   " + b64encode(b"myapp:x"),
        basic(b"myapp", b""),
    ],
)
def test_the_user_of_basic_in_every_spelling(line: bytes) -> None:
    assert by_head(asked(line, method=b"GET", size=0)) == b"myapp"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Authorization: Bearer abc",),
        (b"Authorization: DPoP abc",),
        (basic(b"a"), basic(b"a")),
        (basic(b"a"), b"Authorization: Bearer x"),
        (b"Authorization: Basic",),
        (b"Authorization: Basic ",),
        (b"Authorization: Basic YTpi!",),
        (b"Authorization: Basic YTpiY2Q",),  # without its padding
        (b"Authorization: Basic YTpiY2R=",),  # with bits behind the end
        (b"Authorization: Basic YTpi YTpi",),
        (b"Authorization: Basic YTpi, Basic YTpj",),
        (b"Authorization: Negotiate x, Basic YTpj",),
        (b"Authorization: Basic " + b64encode(b"no colon"),),
        (basic(b""),),
        (basic(b"---"),),
        (basic(b"a%"),),
        (basic(b"a%zz"),),
        (basic(b"a%2562"),),  # escaped twice
        (basic(b"a%00"),),
        (basic(b"a\n"),),
        (basic("ä".encode()),),
        (basic(b"x" * (LONGEST + 1)),),
    ],
)
def test_who_is_nobody(lines: tuple[bytes, ...]) -> None:
    assert by_head(asked(*lines, method=b"GET", size=0)) == NOBODY


def test_as_long_as_may_be() -> None:
    assert by_head(asked(basic(b"%61" * LONGEST), size=0)) == b"a" * LONGEST


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"PATCH", b"POST"])
def test_a_body_that_is_no_form_hides_who_it_is(method: bytes) -> None:
    """A service may read a client from it, and prefer that."""
    assert by_head(asked(basic(b"a"), b"Content-Type: application/json", method=method)) == NOBODY
    assert by_head(asked(basic(b"a"), method=method)) == NOBODY
    if method != b"POST":
        assert by_head(asked(basic(b"a"), FORM, method=method)) == NOBODY


@pytest.mark.parametrize(
    "query",
    [
        b"client_id=b",
        b"x=1&client%5Fid=b",
        b"x=1;client_id=b",
        b"Client_ID",
        b"client_id[]=b",
        b"client_id%5B0%5D=b",
        b"client.id=b",
        b"+client_id=b",
        b"%2563lient_id=b",
        b"a=b%26client_id=c",
        b"client_id%00x=b",
    ],
)
def test_a_client_in_the_query_is_nobody(query: bytes) -> None:
    for size in (0, 9):
        assert by_head(asked(basic(b"a"), FORM, target=b"/oauth/v2/token?" + query, size=size)) == NOBODY


@pytest.mark.parametrize("query", [b"", b"x=client_id", b"id=client&client=id", b"state=clientid%3D"])
def test_a_query_about_something_else_counts_nothing(query: bytes) -> None:
    assert by_head(asked(basic(b"a"), target=b"/oauth/v2/token?" + query, size=0)) == b"a"


# -- forms


@pytest.mark.parametrize(
    "typed",
    [
        b"application/x-www-form-urlencoded",
        b"APPLICATION/x-www-form-urlencoded; charset=UTF-8",
        b'application/x-www-form-urlencoded;charset="us-ascii"',
    ],
)
def test_the_type_of_a_form(typed: bytes) -> None:
    assert by_head(asked(b"Content-Type: " + typed)) is None


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Type: application/x-www-form-urlencoded; charset=utf-16",),
        (b"Content-Type: application/x-www-form-urlencoded; charset=utf-7",),
        (b"Content-Type: application/x-www-form-urlencoded; boundary=x",),
        (b"Content-Type: multipart/form-data; boundary=x",),
        (FORM, FORM),
        (FORM, b"Content-Encoding: gzip"),
        (FORM, b"Content-Encoding: identity"),
    ],
)
def test_what_may_be_read_as_another_form_is_not_waited_for(lines: tuple[bytes, ...]) -> None:
    assert by_head(asked(*lines)) == NOBODY


@pytest.mark.parametrize(
    "body",
    [
        b"client_id=my-app",
        b"client_id=My-App&client_secret=x",
        b"&&grant_type=password&client%5Fid=%6dy%2Dapp&",
        b"client_id=my+app",
        b"client_id=myapp%20",
        b"scope=x&%63%6c%69%65%6e%74%5f%69%64=myapp",
    ],
)
def test_a_client_in_every_spelling(body: bytes) -> None:
    assert client(body) == b"myapp"
    assert client(body, basic(b"MY-APP")) == b"myapp"
    assert client(body, basic(b"another")) == NOBODY


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"grant_type=client_credentials",
        b"client_id",
        b"client_id=",
        b"client_id=a&client_id=a",
        b"client_id=a&client_id=b",
        b"client_id=a&client%5fid=b",
        b"client_id=a&Client_ID=b",
        b"Client_ID=a",
        b"client_id[]=a",
        b"client_id%5B%5D=a",
        b"client.id=a",
        b"client+id=a",
        b"+client_id=a",
        b"\xef\xbb\xbfclient_id=a",
        b"client_id%00=a",
        b"x=1;client_id=a",
        b"client_id=a;client_id=b",
        b"client_id=a&x=b%26client_id%3Dc",
        b"client_id=a&x=b%2526client_id%253Dc",
        b"client_id=a%",
        b"client_id=a%2561",
        b"client_id=a%00",
        b"client_id=%c3%a4",
        b"client_id=" + b"a" * (LONGEST + 1),
    ],
)
def test_a_form_of_nobody(body: bytes) -> None:
    assert client(body) == NOBODY


def test_with_basic_a_form_need_not_name_it() -> None:
    assert client(b"grant_type=client_credentials", basic(b"a")) == b"a"
    assert client(b"client_id=a&client_id=a", basic(b"a")) == NOBODY


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"client_id=abc&x=", b"abc"),
        (b"client_id=abc", NOBODY),  # there may be more of it
        (b"x=1&client_id=ab", NOBODY),
        (b"client_id=abc&client_id", NOBODY),
        (b"x=1", NOBODY),
    ],
)
def test_the_first_part_of_a_form(body: bytes, found: bytes) -> None:
    assert client(body, whole=False) == found
    assert client(body, basic(b"abc"), whole=False) == found


# -- in general


def readings(body: bytes) -> set[str]:
    """The clients that services of several makes may read from a form."""
    found = set()
    for separators in ("&", ";"):
        pairs = [(name, value) for name, value in parse_qsl(body.decode("latin-1"), True, separator=separators)]
        named = [value for name, value in pairs if name == "client_id"]
        anyhow = [value for name, value in pairs if name.lower().strip().removesuffix("[]") == "client_id"]
        found |= {*named[:1], *named[-1:], *anyhow[:1], *anyhow[-1:]}
    return found


PIECES = st.sampled_from(
    [
        "client_id",
        "client%5Fid",
        "Client_Id",
        "=",
        "&",
        ";",
        "a",
        "B",
        "%61",
        "%2561",
        "+",
        "%26",
        "%3D",
        "[]",
        " ",
        "x",
    ]
)


@given(st.lists(PIECES, max_size=14))
def test_who_counts_is_whom_every_service_reads(pieces: list[str]) -> None:
    body = "".join(pieces).encode()
    counted = client(body)
    if counted == NOBODY:
        return
    for read in readings(body):
        plain = "".join(letter for letter in read.partition(";")[0].lower() if letter.isalnum())
        assert plain.encode() == counted, (read, counted)


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="%"), min_size=1, max_size=40)
)
def test_no_escape_makes_another_client(text: str) -> None:
    escaped = "".join(f"%{ord(letter):02x}" for letter in text)
    plain = client(b"client_id=" + quote(text, safe="").encode())
    assert plain == client(b"client_id=" + escaped.encode())
    assert by_head(asked(basic(escaped.encode()), size=0)) == plain
