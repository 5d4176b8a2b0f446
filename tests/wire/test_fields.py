"""Field names: what each means in either direction, whatever its spelling, in a table with a bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.wire.body import trailer_passes
from koder_gateway.wire.fields import (
    CODING,
    CONNECTION,
    DATE,
    DROP,
    EXPECT,
    FIELD_LINE,
    FORWARDED,
    HOP_BY_HOP,
    HOST,
    KEPT,
    LENGTH,
    ORIGIN,
    PASS,
    PROTECTED,
    RATE,
    REQUEST_ID,
    TENANT,
    TOKEN,
    TRACE,
    TRAILER,
    FieldKinds,
    connection_options,
    folded,
    without_fields,
)

REQUEST = {
    b"Host": HOST,
    b"Content-Length": LENGTH,
    b"Transfer-Encoding": CODING,
    b"Connection": CONNECTION,
    b"Origin": ORIGIN,
    b"Expect": EXPECT,
    b"X-Request-ID": REQUEST_ID,
    b"X-Tenant-ID": TENANT,
    b"Forwarded": FORWARDED,
    b"X-Real-IP": FORWARDED,
    b"X-Forwarded-For": FORWARDED,
    b"X-Forwarded-Anything": FORWARDED,
    b"traceparent": TRACE,
    b"Trailer": TRAILER,
    b"X_Tenant_ID": DROP,
    b"Content_Length": DROP,
    b"X-Forwarded_For": DROP,
    b"Keep-Alive": DROP,
    b"TE": DROP,
    b"Upgrade": DROP,
    b"Proxy-Connection": DROP,
    b"Proxy-Authorization": DROP,
    b"HTTP2-Settings": DROP,
    b"Accept": PASS,
    b"Authorization": PASS,
    b"Cookie": PASS,
    b"X-Anything": PASS,
    b"tracestate": TRACE,
}
RESPONSE = {
    b"Content-Length": LENGTH,
    b"Transfer-Encoding": CODING,
    b"Connection": CONNECTION,
    b"Date": DATE,
    b"Trailer": TRAILER,
    b"RateLimit": RATE,
    b"RateLimit-Policy": RATE,
    b"X-Request-ID": DROP,
    b"X-Tenant-ID": DROP,
    b"Access-Control-Allow-Origin": DROP,
    b"Access-Control-Anything": DROP,
    b"Keep-Alive": KEPT,
    b"Upgrade": DROP,
    b"Proxy-Authenticate": DROP,
    b"Set-Cookie": PASS,
    b"Location": PASS,
    b"WWW-Authenticate": PASS,
    b"Host": PASS,
    b"Vary": PASS,
}
TOKENS = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1).map(str.encode)


def spellings(name: bytes) -> st.SearchStrategy[bytes]:
    """The same name in any mixture of cases."""
    return st.tuples(*(st.sampled_from((bytes((c,)).lower(), bytes((c,)).upper())) for c in name)).map(b"".join)


@pytest.mark.parametrize(("name", "kind"), REQUEST.items())
@given(st.data())
@settings(max_examples=8)
def test_what_a_client_sends(name: bytes, kind: int, data: st.DataObject) -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    assert kinds.classify(data.draw(spellings(name))) == kind


@pytest.mark.parametrize(("name", "kind"), RESPONSE.items())
@given(st.data())
@settings(max_examples=8)
def test_what_a_service_sends(name: bytes, kind: int, data: st.DataObject) -> None:
    kinds = FieldKinds.of_responses(b"X-Tenant-ID")
    assert kinds.classify(data.draw(spellings(name))) == kind


def test_the_tenant_header_has_the_configured_name() -> None:
    kinds = FieldKinds.of_requests(b"X-Org")
    assert (kinds.classify(b"x-org"), kinds.classify(b"X-Tenant-ID")) == (TENANT, PASS)
    assert FieldKinds.of_responses(b"X-Org").classify(b"X-ORG") == DROP


MARKS = st.lists(st.sampled_from("!#$%&'*+-.^_`|~"), max_size=2).map("".join)


@pytest.mark.parametrize(
    "name",
    [
        "X-Tenant-ID",
        "X-Request-ID",
        "X-Real-IP",
        "Forwarded",
        "X-Forwarded-For",
        "traceparent",
        "Client-Cert",
        "Client-Cert-Chain",
    ],
)
@given(st.data())
@settings(max_examples=30)
def test_no_other_spelling_of_the_gateways_own_names_passes(name: str, data: st.DataObject) -> None:
    """Whatever stands between or around its letters: a service may make the same variable of it."""
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    letters = name.replace("-", "")
    other = "".join(data.draw(MARKS) + letter for letter in letters) + data.draw(MARKS)
    assert folded(other.encode()) == folded(name.encode())
    if other.lower() != name.lower():
        assert kinds.classify(other.encode()) in (DROP, FORWARDED)
    assert not trailer_passes(other.encode(), b"X-Tenant-ID")


READ = [
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Trailer", "Origin", "Max-Forwards",
    "Content-Type", *(name.decode() for name in sorted(HOP_BY_HOP)),
]  # fmt: skip


@pytest.mark.parametrize("name", READ)
@given(st.data())
@settings(max_examples=30)
def test_no_other_spelling_of_what_the_gateway_reads_passes(name: str, data: st.DataObject) -> None:
    """A service that folds names would take for framing what the gateway has not taken for it."""
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    assert kinds.classify(name.encode()) != DROP or name.encode() in HOP_BY_HOP
    other = "".join(data.draw(MARKS) + letter for letter in name.replace("-", "")) + data.draw(MARKS)
    if other.lower() != name.lower():
        assert kinds.classify(other.encode()) == DROP
    answers = FieldKinds.of_responses(b"X-Tenant-ID")
    if other.lower() != name.lower() and name not in ("Host", "Expect", "Origin", "Max-Forwards", "Content-Type"):
        assert answers.classify(other.encode()) == DROP


def test_names_that_only_resemble_others_pass() -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    for name in (b"X-Tenant", b"Tenant-ID", b"X-Tenant-ID2", b"Content-Len", b"X-Real", b"~", b"1.1"):
        assert kinds.classify(name) == PASS


def test_the_usual_names_are_known_beforehand() -> None:
    table = FieldKinds.of_requests(b"X-Tenant-ID").table
    for name in ("Host", "host", "User-Agent", "Sec-Fetch-User", "Upgrade-Insecure-Requests", "X-Request-ID"):
        assert name.encode() in table
    for name in table:
        assert TOKEN.fullmatch(name)
        assert not name.endswith(b"-"), f"a name was torn: {name!r}"


@given(TOKENS)
def test_a_remembered_name_means_what_it_meant(name: bytes) -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    assert kinds.classify(name) == kinds.table[name] == kinds.classify(name)


def test_a_flood_of_names_is_not_remembered_and_still_classified() -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    for number in range(3 * FieldKinds.BOUND):
        assert kinds.classify(b"X-%d" % number) == PASS
    assert len(kinds.table) <= FieldKinds.BOUND
    assert kinds.classify(b"tRANSFER-eNCODING") == CODING
    assert kinds.classify(b"x_new_name") == DROP


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], set()),
        ([b"close"], {b"close"}),
        ([b" Close ,\tX-A"], {b"close", b"x-a"}),
        ([b"keep-alive", b"X-B, ,"], {b"keep-alive", b"x-b"}),
        ([b"", b","], set()),
    ],
)
def test_the_options_of_all_connection_fields(values: list[bytes], options: set[bytes]) -> None:
    assert connection_options(values) == options


@given(st.lists(TOKENS, max_size=6), st.sets(TOKENS, max_size=3))
def test_lines_without_some_names(names: list[bytes], dropped: set[bytes]) -> None:
    lines = [b"%b: %d\r\n" % (name, number) for number, name in enumerate(names)]
    lower = frozenset(name.lower() for name in dropped)
    kept = without_fields(lines, lower)
    assert kept == [line for line, name in zip(lines, names, strict=True) if name.lower() not in lower]


@pytest.mark.parametrize(
    "line",
    [
        b"X : a",
        b" X: a",
        b": a",
        b"X",
        b"X: a\0",
        b"X: a\rb",
        b"X: a\nb",
        b"X: \x7f",
        b"X\xe4: a",
        b"X Y: a",
        b"",
        b"X: \x1b",
    ],
)
def test_no_field_line(line: bytes) -> None:
    assert FIELD_LINE.fullmatch(line) is None


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"X: a", b"X", b"a"),
        (b"X:a", b"X", b"a"),
        (b"X:\t a b", b"X", b"a b"),
        (b"X:", b"X", b""),
        (b"X: \xe4", b"X", b"\xe4"),
    ],
)
def test_a_field_line(line: bytes, name: bytes, value: bytes) -> None:
    match = FIELD_LINE.fullmatch(line)
    assert match is not None
    assert match.groups() == (name, value)


def test_names_are_kept_in_lower_case_where_they_are_looked_up() -> None:
    assert all(name == name.lower() for name in (*HOP_BY_HOP, *PROTECTED))
    assert {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"} <= PROTECTED
