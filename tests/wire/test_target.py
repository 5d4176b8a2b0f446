"""Targets and Host values: what has one reading passes, what has two is refused."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.errors import Refusal
from koder_gateway.wire.target import (
    CLEAN_PATH,
    PLAIN_PATH,
    SHORT_PATH,
    AbsoluteForm,
    host_fault,
    is_plain,
    origin_form,
    path_fault,
    query_fault,
)

GOOD = [
    b"/", b"/v1/users", b"/v1/users/", b"//", b"/v1//users", b"/a.b", b"/.well-known/x", b"/..a", b"/a..", b"/...",
    b"/a/.b", b"/%20", b"/%252e", b"/%0d%0a", b"/%2E1"[:1] + b"x", b"/~a-b_c", b"/a;b=c", b"/a:b@c!$&'()*+,=",
    b"/%41", b"/%fF", b"/a.",
]  # fmt: skip
BAD = [
    b"", b"v1", b"*", b"/.", b"/..", b"/./a", b"/../a", b"/a/.", b"/a/..", b"/a/./b", b"/a/../b", b"/..;x",
    b"/.;/b", b"/a/..;p=1/b", b"/%2e", b"/%2E", b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a%5Cb", b"/%00", b"/a\\b",
    b"/\0", b"/a b", b"/a\tb", b"/a\r", b"/a\nb", b"/\x7f", b"/\xe4", b"/\x80", b"/a#b", b"/#", b"/%", b"/%2",
    b"/%zz", b"/%2x", b"/a%", b"/%u002e", b"/%%2e",
]  # fmt: skip
BYTES = st.lists(
    st.sampled_from(
        [b"/", b".", b"..", b"%", b"2", b"e", b"f", b"5", b"c", b"0", b"a", b";", b"\\", b"%41", b"%2e", b"-", b" "]
    )
).map(b"".join)


@pytest.mark.parametrize("path", GOOD)
def test_a_path_with_one_reading(path: bytes) -> None:
    assert path_fault(path) is None


@pytest.mark.parametrize("path", BAD)
def test_a_path_with_two_readings(path: bytes) -> None:
    fault = path_fault(path)
    assert fault is not None
    assert fault.endswith(".")


@given(st.one_of(BYTES, st.binary(max_size=20)).map(lambda tail: b"/" + tail))
def test_a_path_that_passes_reads_the_same_decoded(path: bytes) -> None:
    """No order of decoding, resolving and splitting gives another number of segments, or a dot segment."""
    if path_fault(path) is not None:
        return
    assert re.fullmatch(rb"/[\x21-\x7e]*", path)
    for decoded in (path, unquote_to_bytes(path)):
        assert decoded.count(b"/") == path.count(b"/")
        assert b"\\" not in decoded
        assert b"\0" not in decoded
        for segment in decoded.split(b"/"):
            assert segment.partition(b";")[0] not in (b".", b"..")


@given(st.one_of(BYTES, st.binary(max_size=20)))
def test_a_long_path_is_judged_as_a_short_one(tail: bytes) -> None:
    """Another way of looking through it comes to the same: only a long path with dots is never taken for plain."""
    short, long = b"/a/" + tail, b"/" + b"a" * SHORT_PATH + b"/" + tail
    assert path_fault(short) == path_fault(long)
    assert is_plain(short) == (PLAIN_PATH.fullmatch(short) is not None)
    assert is_plain(long) == (PLAIN_PATH.fullmatch(long) is not None and b"." not in long)
    if CLEAN_PATH.fullmatch(long):
        assert path_fault(long) is None


@given(BYTES)
def test_a_bad_path_does_not_get_better_below_a_good_one(path: bytes) -> None:
    bad = b"/" + path
    if path_fault(bad) is not None:
        assert path_fault(b"/v1" + bad) is not None


@pytest.mark.parametrize(
    "query", [b"", b"a=b", b"a=%zz", b"..", b"/../", b"%2e%2f%5c", b"a\\b", b"?a?b", b"a=[1]{2}|"]
)
def test_a_query_is_the_services_to_judge(query: bytes) -> None:
    assert query_fault(query) is None


@pytest.mark.parametrize("query", [b"a b", b"\0", b"a\r", b"a\n", b"\x7f", b"\xe4", b"a#b", b"\t"])
def test_a_query_with_what_no_target_has(query: bytes) -> None:
    assert query_fault(query) is not None


@pytest.mark.parametrize(
    "host",
    [
        b"a", b"a.b.c", b"A.B", b"a.", b"a:80", b"a:", b"a:65535", b"a_b", b"127.0.0.1", b"127.0.0.1:1", b"[::1]",
        b"[::1]:443", b"[::ffff:1.2.3.4]",
    ],
)  # fmt: skip
def test_a_host(host: bytes) -> None:
    assert host_fault(host) is None


@pytest.mark.parametrize(
    "host",
    [
        b"", b"a,b", b"a b", b"u@a", b"a/b", b"a:b", b"a:65536", b"a:999999", b"a:-1", b"a:80:80", b"a\0", b"[::1",
        b"::1", b"[a]x", b"[gg::]", b"http://a", b"a?b", b"a#b", b"\xe4", b"a%2eb", b"[::1]:x", b" a", b"a\t",
        b"x" * 256, b":80", b"a\\b", b"a;b", b"[]", b"\"a\"",
    ],
)  # fmt: skip
def test_no_host(host: bytes) -> None:
    assert host_fault(host) is not None


@pytest.mark.parametrize(
    ("target", "host", "origin"),
    [
        (b"http://a/v1?x", b"a", b"/v1?x"),
        (b"https://a/v1", b"a", b"/v1"),
        (b"HTTP://A/v1", b"a", b"/v1"),
        (b"http://a", b"a", b"/"),
        (b"http://a?x", b"a", b"/?x"),
        (b"http://a:80/x", b"a", b"/x"),
        (b"https://a/x", b"a:443", b"/x"),
        (b"http://a:/x", b"a", b"/x"),
        (b"http://a:8080/x", b"a:8080", b"/x"),
        (b"http://a//x", b"a", b"//x"),
        (b"HTTPS://a:443/x", b"a", b"/x"),
        (b"http://A/x", b"a:80", b"/x"),
    ],
)
def test_an_absolute_form(target: bytes, host: bytes, origin: bytes) -> None:
    found = origin_form(b"GET", target, host)
    assert isinstance(found, AbsoluteForm)
    scheme, authority, rest = found
    assert rest == origin
    assert target.lower().startswith(scheme + b"://")
    assert target.split(b"//", 1)[1].startswith(authority)
    assert authority.lower().partition(b":")[0] == host.partition(b":")[0]


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://a/x", b"b"),
        (b"http://a:8080/x", b"a"),
        (b"http://u@a/x", b"a"),
        (b"http://a,b/x", b"a"),
        (b"http:///x", b"a"),
        (b"ftp://a/x", b"a"),
        (b"http:/a", b"a"),
        (b"a:443", b"a"),
        (b"*", b"a"),
        (b"http://a/x#y", b"a"),
        (b"http://a.evil/x", b"a"),
        (b"http://a:99999/", b"a:99999"),
        (b"http://a\\b/", b"a"),
        (b"http://a:443/x", b"a"),
        (b"http://a:443/x", b"a:80"),
        (b"https://a:80/x", b"a"),
        (b"https://a/x", b"a:80"),
    ],
)
def test_an_absolute_form_that_is_refused(target: bytes, host: bytes) -> None:
    refusal = origin_form(b"GET", target, host)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (400, "bad_request")


@pytest.mark.parametrize("target", [b"http://a", b"https://a:443"])
def test_options_of_no_path_is_that_of_the_server(target: bytes) -> None:
    for method, rest, origin in (
        (b"OPTIONS", b"", b"*"),
        (b"OPTIONS", b"/", b"/"),
        (b"GET", b"", b"/"),
        (b"OPTIONS", b"?a", b"/?a"),
    ):
        found = origin_form(method, target + rest, b"a")
        assert isinstance(found, AbsoluteForm)
        assert found.target == origin


@pytest.mark.parametrize("path", [b"/" + b"a" * 8000 + b"|%", b"/" + b"a/" * 4000 + b"%2e", b"/" * 8000 + b"."])
def test_no_path_is_slow_to_judge(path: bytes) -> None:
    """A pattern with two ways to match would not come to an end here."""
    assert path_fault(path) is not None
