"""Which answers 400 are no guess: by the pure rule, and by what is charged on each way in."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl

import pytest
from doors import WAYS, Doors, open_doors
from hypothesis import given
from hypothesis import strategies as st
from sockets import SETTINGS

from koder_gateway.policy.grants import asks_for_refresh, is_no_guess

EXPIRED = b'{"error":"invalid_grant","error_description":"The token has expired."}'
REFRESH = b"grant_type=refresh_token&refresh_token=tGzv3JOkF0XG5Qx2TlKWIA"

GOOD = [
    REFRESH,
    b"refresh_token=a.b-c_d~e&client_id=app&grant_type=refresh_token",
    REFRESH + b"&client_id=app&client_secret=7Fjfp0ZBr1KtDRbnfVdmIw%3D%3D&scope=openid+profile",
    REFRESH + b"&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&"
    b"client_assertion=e30.e30.x&resource=https://api.example.com/&audience=api&redirect_uri=com.app:/back",
]
BAD = {
    "another grant": b"grant_type=password&username=a&password=b",
    "a code": b"grant_type=authorization_code&code=a",
    "no grant": b"refresh_token=a",
    "no token": b"grant_type=refresh_token",
    "an empty token": b"grant_type=refresh_token&refresh_token=",
    "a grant that is no more than begun": b"grant_type=refresh_toke&refresh_token=a",
    "two grants": b"grant_type=password&" + REFRESH,
    "two grants, the other way": REFRESH + b"&grant_type=password",
    "a grant twice": REFRESH + b"&grant_type=refresh_token",
    "two tokens": REFRESH + b"&refresh_token=b",
    "an escaped grant": b"grant_type=refresh%5Ftoken&refresh_token=a",
    "an escaped name": REFRESH + b"&grant%5Ftype=password",
    "a name in another case": REFRESH + b"&Grant_Type=password",
    "an array": REFRESH + b"&grant_type[]=password",
    "a name with a dot": REFRESH + b"&grant.type=password",
    "a password": REFRESH + b"&username=a&password=b",
    "a password behind a semicolon": REFRESH + b";grant_type=password;username=a;password=b",
    "a space before a name": REFRESH + b"& grant_type=password",
    "a plus before a name": REFRESH + b"&+grant_type=password",
    "nothing between": REFRESH + b"&&client_id=a",
    "nothing behind": REFRESH + b"&",
    "a name alone": REFRESH + b"&client_id",
    "a line's end": REFRESH + b"\r\n",
    "NUL": REFRESH + b"\0&grant_type=password",
    "a quote": REFRESH + b'"',
    "a letter of another alphabet": REFRESH + "é".encode(),
    "JSON": b'{"grant_type":"refresh_token","refresh_token":"a"}',
    "JSON around a form": b'{"x":"&' + REFRESH + b'&","grant_type":"password"}',
    "a part of several": b'--b\r\ncontent-disposition: form-data; name="grant_type"\r\n\r\npassword\r\n--b--&'
    + REFRESH,
    "nothing": b"",
}


@pytest.mark.parametrize("body", GOOD)
def test_a_request_for_a_refresh_is_known(body: bytes) -> None:
    assert asks_for_refresh(body)
    assert is_no_guess(b"/oauth/v2/token", body, EXPIRED)


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_may_be_read_otherwise_is_none(body: bytes) -> None:
    assert not asks_for_refresh(body)
    assert not is_no_guess(b"/oauth/v2/token", body, EXPIRED)


parts = st.sampled_from(
    [b"grant_type", b"refresh_token", b"password", b"grant%5ftype", b"=", b"&", b"+", b";", b"%", b"[]", b"a", b"\0"]
)


@given(st.lists(parts, max_size=14).map(b"".join))
def test_what_is_known_is_one_form_to_a_lenient_reader(added: bytes) -> None:
    """Whatever is put behind a request for a refresh: it is none, or no reader sees another grant in it."""
    body = REFRESH + added
    if asks_for_refresh(body):
        for separator in "&;":
            read = parse_qsl(body.decode("latin-1"), keep_blank_values=True, separator=separator)
            names = [name for name, _ in read if "grant" in name.lower() or "password" in name.lower()]
            assert names == ["grant_type"]


@pytest.mark.parametrize(
    ("target", "body", "reason", "excused"),
    [
        (b"/oauth/v2/token?grant_type=password", REFRESH, EXPIRED, False),
        (b"/oauth/v2/token?", REFRESH, EXPIRED, False),
        (b"/oauth/v2/token", None, EXPIRED, False),
        (b"/oauth/v2/token", REFRESH, b'{"error":"invalid_client"}', False),
        (b"/oauth/v2/token", REFRESH, b'{"error":"invalid_request"}', False),
        (b"/oauth/v2/token", REFRESH, b'{"error_description":"\\"error\\":\\"invalid_grant\\""}', False),
        (b"/oauth/v2/token", REFRESH, b"", False),
        (b"/oauth/v2/token", REFRESH, b'{ "error" : "invalid_grant" }', True),
        (b"/oauth/v2/token", None, b'{"error":"expired_token"}', True),
        (b"/oauth/v2/token", b"device_code=a", b'{"error":"authorization_pending"}', True),
        (b"/oauth/v2/token", b"device_code=a", b'{"error":"access_denied"}', False),
    ],
)
def test_the_answer_decides_too(target: bytes, body: bytes | None, reason: bytes, excused: bool) -> None:
    assert is_no_guess(target, body, reason) is excused


# -- through the gateway

LIMITS = "".join(
    f"""
[[limits]]
name = "{way}"
rate = "1/h"
burst = 2
paths = ["/v1/users/{way}"]
charge = "failures"
"""
    for way in WAYS
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS.replace("limits = []\n", "") + LIMITS
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        yield doors


@pytest.mark.parametrize("way", WAYS)
def test_expired_refresh_tokens_are_charged_on_no_way_in(way: str, doors: Doors) -> None:
    path = b"/v1/users/" + way.encode()
    doors.origin.answers[path] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(EXPIRED), EXPIRED)
    form = [(b"Content-Type", b"application/x-www-form-urlencoded")]

    def ask(body: bytes) -> int:
        return doors.ask(way, path, form, method=b"POST", body=body).status

    assert [ask(REFRESH) for _ in range(5)] == [400] * 5
    # A guess each, until there is nothing left; then a refresh waits as well.
    assert [ask(BAD["two grants"]) for _ in range(3)] == [400, 400, 429]
    assert ask(REFRESH) == 429
