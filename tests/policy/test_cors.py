"""CORS answers and preflights: exact origins only."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.cors import CorsPolicy, origin_fault

APP = b"https://app.example.com"
TENANT = b"https://koder.example"
POLICY = CorsPolicy([APP.decode()])


def held_after(work: Callable[[], object]) -> int:
    """The bytes of memory that are still held of those taken by `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def fields(lines: bytes | None) -> dict[str, str]:
    assert lines is not None
    assert lines.endswith(b"\r\n")
    pairs = [line.partition(": ") for line in lines.decode("ascii").split("\r\n")[:-1]]
    found = {name: value for name, _, value in pairs}
    assert len(found) == len(pairs)
    return found


def test_an_allowed_origin_is_named() -> None:
    assert fields(POLICY.answer_fields(APP)) == {
        "Access-Control-Allow-Origin": "https://app.example.com",
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "X-Request-ID, DPoP-Nonce, ETag, Link, "
        "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, Location",
        "Vary": "Origin",
    }


FOREIGN = [
    None,
    b"",
    b"null",
    b"*",
    b"https://app.example.com.evil.example",
    b"https://evil.example/https://app.example.com",
    b"http://app.example.com",
    b"https://app.example.com/",
    b"https://app.example.com:443",
    b"https://APP.example.com",
    b"HTTPS://app.example.com",
    b"https://app.example.com https://app.example.com",
    b"https://app.example.com, https://app.example.com",
    b" https://app.example.com",
    b"https://app.example.com\x00",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_origin_gets_vary_alone(origin: bytes | None) -> None:
    assert POLICY.answer_fields(origin, {TENANT}) == b"Vary: Origin\r\n"


@pytest.mark.parametrize("origin", [origin for origin in FOREIGN if origin is not None])
def test_a_foreign_preflight_is_an_ordinary_request(origin: bytes) -> None:
    assert POLICY.preflight(origin, b"GET", None, {TENANT}) is None


def test_a_tenants_origin_counts_for_that_tenant_only() -> None:
    assert fields(POLICY.answer_fields(TENANT, {TENANT}))["Access-Control-Allow-Origin"] == TENANT.decode()
    assert POLICY.answer_fields(TENANT, {b"https://other.example"}) == b"Vary: Origin\r\n"
    assert POLICY.preflight(TENANT, b"GET", b"x-a", {TENANT}) is not None
    # What was answered to one tenant's page is not remembered for another's.
    assert POLICY.preflight(TENANT, b"GET", b"x-a", ()) is None


def test_without_any_origin_configured_nothing_is_added() -> None:
    none = CorsPolicy()
    assert none.answer_fields(APP) == b""
    assert none.answer_fields(None) == b""
    assert none.answer_fields(None, (), any_configured=True) == b"Vary: Origin\r\n"
    assert fields(none.answer_fields(TENANT, {TENANT}, True))["Access-Control-Allow-Origin"] == TENANT.decode()


def test_a_preflight_is_answered_in_full() -> None:
    assert fields(POLICY.preflight(APP, b"PUT", b"content-type, x-tenant-id")) == {
        "Access-Control-Allow-Origin": "https://app.example.com",
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        "Access-Control-Max-Age": "600",
        "Access-Control-Allow-Headers": "content-type, x-tenant-id",
        "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


def test_each_origin_gets_its_own_answer_to_the_same_preflight() -> None:
    policy = CorsPolicy([APP.decode(), "https://two.example"])
    for origin in (APP, b"https://two.example", APP, TENANT):
        answer = fields(policy.preflight(origin, b"GET", b"x-a", {TENANT}))
        assert answer["Access-Control-Allow-Origin"] == origin.decode()


def test_a_preflight_gives_the_same_answer_again() -> None:
    assert POLICY.preflight(APP, b"PUT", b"a") == POLICY.preflight(APP, b"PUT", b"a")
    assert POLICY.preflight(APP, b"PUT", b"a") != POLICY.preflight(APP, b"PUT", b"b")


@pytest.mark.parametrize("asked", [None, b"", b"  "])
def test_headers_not_asked_for_are_not_listed(asked: bytes | None) -> None:
    assert "Access-Control-Allow-Headers" not in fields(POLICY.preflight(APP, b"GET", asked))


@pytest.mark.parametrize(
    "asked",
    [
        b"a b",
        b"a,,b c",
        b"a:",
        b"a\r\nX-Evil: 1",
        b"a\n",
        b"x;y",
        b"\xc3\xa4",
        b'"a"',
        b"a," * 4096 + b"a",
        b"a" + b"," * 4096 + b"b",
    ],
)
def test_malformed_or_endless_names_get_no_cors(asked: bytes) -> None:
    assert POLICY.preflight(APP, b"GET", asked) is None


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        (b"a,,b", "a, b"),
        (b"a,", "a"),
        (b",a", "a"),
        (b" , a\t,, ,b, ", "a, b"),
        (b",", None),
        (b" ,\t, ", None),
        (b"," * 8192, None),
    ],
)
def test_empty_elements_of_a_list_are_ignored(asked: bytes, listed: str | None) -> None:
    for answer in (POLICY.preflight(APP, b"GET", asked), POLICY.public_preflight(b"GET", asked)):
        assert fields(answer).get("Access-Control-Allow-Headers") == listed


@pytest.mark.parametrize(("count", "echoed"), [(64, True), (65, False)])
def test_there_are_no_more_names_than_a_page_has(count: int, echoed: bool) -> None:
    answer = POLICY.preflight(APP, b"POST", b", ".join([b"x-a"] * count))
    assert (answer is not None) is echoed


def test_names_are_echoed_up_to_the_bound() -> None:
    asked = b"x" * 8192
    assert fields(POLICY.preflight(APP, b"GET", asked))["Access-Control-Allow-Headers"] == asked.decode()
    assert POLICY.preflight(APP, b"GET", asked + b"x") is None


def test_a_method_that_is_not_allowed_gets_the_list() -> None:
    policy = CorsPolicy([APP.decode()], methods=["GET"])
    assert fields(policy.preflight(APP, b"DELETE", None))["Access-Control-Allow-Methods"] == "GET"


def test_no_method_is_no_preflight() -> None:
    assert POLICY.preflight(APP, b"", None) is None


def test_everything_is_configurable() -> None:
    policy = CorsPolicy(
        [APP.decode()],
        methods=["GET", "POST"],
        headers=["X-A", "X-B"],
        expose=[],
        max_age=5,
        credentials=False,
    )
    assert fields(policy.answer_fields(APP)) == {
        "Access-Control-Allow-Origin": APP.decode(),
        "Vary": "Origin",
    }
    answer = fields(policy.preflight(APP, b"GET", b"x-c"))
    assert answer["Access-Control-Allow-Headers"] == "X-A, X-B"
    assert answer["Access-Control-Max-Age"] == "5"
    assert "Access-Control-Allow-Credentials" not in answer


def test_answers_stay_right_when_more_are_asked_for_than_are_remembered() -> None:
    for number in range(3000):
        answer = fields(POLICY.preflight(APP, b"GET", b"x-%d" % number))
        assert answer["Access-Control-Allow-Headers"] == f"x-{number}"
    assert fields(POLICY.preflight(APP, b"GET", b"x-0"))["Access-Control-Allow-Headers"] == "x-0"


@pytest.mark.parametrize("size", [500, 8000], ids=["of usual size", "of the largest size"])
def test_a_flood_of_preflights_takes_bounded_memory(size: int) -> None:
    """A thousand answers of the usual size take 1.5 MiB; larger ones are not remembered."""
    policy = CorsPolicy([APP.decode()])
    padding = b"x" * (size - 6)

    def flood() -> None:
        for number in range(5000):
            assert policy.preflight(APP, b"GET", padding + b"%06d" % number) is not None

    assert held_after(flood) < 3 << 20


@pytest.mark.parametrize(
    "text",
    [
        "https://app.example.com",
        "http://localhost:3000",
        "https://a.example:8443",
        "http://[::1]:8080",
        "http://127.0.0.1",
        "capacitor://localhost",
        "https://xn--bcher-kva.example",
        "https://*.app.example",
        "https://*.app.example:8443",
        "https://*.xn--bcher-kva.example",
    ],
)
def test_origins_that_browsers_send(text: str) -> None:
    assert origin_fault(text) is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("null", "sandboxed"),
        ("*", '"*" is every page, which credentials forbid; '),
        ("https://*", "that is not one whole label of an https origin"),
        ("https://*.", "that is not one whole label"),
        ("https://*.com", "covers domains that anybody can register"),
        ("https://*.co.uk", "covers domains that anybody can register"),
        ("https://*.0.0.1", "covers domains that anybody can register"),
        ("https://*.1.2.3:8443", "covers domains that anybody can register"),
        ("https://app-*.example.com", "that is not one whole label"),
        ("https://*app.example.com", "that is not one whole label"),
        ("https://*.*.example.com", "that is not one whole label"),
        ("https://app.*.example.com", "that is not one whole label"),
        ("https://*.example.com:*", "that is not one whole label"),
        ("https://*.example.com/", "that is not one whole label"),
        ("https://*@a.example.com", "that is not one whole label"),
        ("https://*.a@b.example.com", "that is not one whole label"),
        ("http://*.example.com", "that is not one whole label of an https origin"),
        ("*://a.example.com", "that is not one whole label"),
        ("https://*.Example.com", 'write "https://*.example.com"'),
        ("https://*.example.com:443", "default port"),
        ("https://*.example..com", "scheme://host"),
        ("https://*.b\u00fccher.example", "scheme://host"),
        ("https://App.example.com", "https://app.example.com"),
        ("https://app.example.com/", "without a path"),
        ("https://app.example.com/x", "without a path"),
        ("app.example.com", "scheme://host"),
        ("https://", "scheme://host"),
        ("https://a@b.example", "scheme://host"),
        ("https://a.example?x", "scheme://host"),
        ("https://a.example:", "scheme://host"),
        ("https://a.example:0", "scheme://host"),
        ("https://a.example:65536", "65535"),
        ("https://a.example:443", '"https://a.example"'),
        ("http://a.example:80", '"http://a.example"'),
        ("https://a.example\n", "scheme://host"),
        ("https://b\u00fccher.example", "scheme://host"),
        ("", "scheme://host"),
    ],
)
def test_origins_that_are_refused(text: str, hint: str) -> None:
    fault = origin_fault(text)
    assert fault is not None
    assert hint in fault


@pytest.mark.parametrize("text", ["null", "*", "https://App.example.com"])
def test_a_policy_cannot_be_made_to_allow_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|list|name"):
        CorsPolicy([text])


near = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda a, b: a + APP + b, st.binary(max_size=3), st.binary(max_size=3)),
    st.builds(lambda i, b: APP[:i] + bytes([b]) + APP[i + 1 :], st.integers(0, len(APP) - 1), st.integers(0, 255)),
)


@given(near)
def test_only_the_exact_origin_is_allowed(origin: bytes) -> None:
    allowed = origin == APP
    assert (b"Access-Control" in POLICY.answer_fields(origin)) == allowed
    assert (POLICY.preflight(origin, b"GET", None) is not None) == allowed


@given(st.binary(max_size=60))
def test_no_request_can_add_a_field_line(asked: bytes) -> None:
    answer = POLICY.preflight(APP, b"GET", asked)
    if answer is not None:
        assert answer.count(b"\n") == answer.count(b"\r\n") == (6 if asked.strip(b" \t,") else 5)
