"""Which answers 400 are no guess: by the pure rule, and by what is charged on each way in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.grants import (
    DEVICE_NAMES,
    LONGEST_ANSWER,
    REFRESH_NAMES,
    SHORT_ANSWER,
    Excuse,
    error_of,
    excusable_errors,
    excuse_for,
    is_form,
    is_json,
)
from koder_gateway.wire.body import LAST_CHUNK, chunk
from tests.kit.doors import WAYS, Doors, open_doors
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, data, in_frames
from tests.kit.recording import HOST, SETTINGS, connect, request

EXPIRED = b'{"error":"invalid_grant","error_description":"The token has expired."}'
PENDING = b'{"error":"authorization_pending"}'
REFRESH = b"grant_type=refresh_token&refresh_token=tGzv3JOkF0XG5Qx2TlKWIA"
DEVICE = b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=GmRhmhcxhwAzkoEqiMEgDnyEys"
NOTHING: frozenset[str] = frozenset()
LAPSED = {"invalid_grant"}
WAITING = {"authorization_pending", "slow_down", "expired_token"}
FORM = b"Content-Type: application/x-www-form-urlencoded"
PLAIN_HEAD = b"POST /oauth/v2/token HTTP/1.1\r\nHost: koder.id.localhost\r\n%b\r\nContent-Length: 9\r\n\r\n"
HEAD = PLAIN_HEAD % FORM
JSON = [b"Content-Type: application/json\r\n"]


def holds(request: list[bytes], answer: bytes = EXPIRED, *, chunked: bool = False) -> bool:
    """Whether this answer to this request is excused."""
    excuse = excuse_for(request, chunked, JSON)
    assert excuse is not None
    excuse.add(answer)
    return excuse.holds


GOOD = [
    REFRESH,
    b"refresh_token=a.b-c_d~e&client_id=app&grant_type=refresh_token",
    REFRESH + b"&client_id=app&client_secret=7Fjfp0ZBr1KtDRbnfVdmIw%3D%3D&scope=openid+profile",
    REFRESH + b"&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&"
    b"client_assertion=e30.e30.x&resource=https://api.example.com/&audience=api&redirect_uri=com.app:/back",
]
GOOD_DEVICES = [
    DEVICE,
    b"client_id=tv&device_code=a&grant_type=urn:ietf:params:oauth:grant-type:device_code",
    b"grant_type=urn%3aietf%3aparams%3aoauth%3agrant-type%3adevice_code&device_code=a&client_secret=s&scope=openid",
    DEVICE + b"&client_id=tv&code_verifier=dBjftJeZ4CVP-mBlv5PrzHsR5q3O0nR1iT9_8w",
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
    "UTF-16": REFRESH.decode().encode("utf-16le"),
    "a mark of Unicode's": b"\xef\xbb\xbf" + REFRESH,
    "what decoded first has another grant": REFRESH + b"&client_id=x%26grant_type%3Dpassword",
    "the same behind a semicolon": REFRESH + b"&client_id=x%3bgrant_type%3Dpassword",
    "what decoded twice has another grant": REFRESH + b"&client_id=x%2526grant_type%253Dpassword",
    "an overlong ampersand": REFRESH + b"&client_id=x%C0%A6grant_type=password",
    "an escaped line's end": REFRESH + b"&client_id=x%0Agrant_type=password",
    "an escaped NUL": REFRESH + b"&client_id=x%00",
    "a broken escape": REFRESH + b"&client_id=%u0026grant_type=password",
    "an unfinished escape": REFRESH + b"&client_id=%2",
    "a grant in another case": b"grant_type=REFRESH_TOKEN&refresh_token=a",
    "a code of a login": REFRESH + b"&code=a",
    "a charset": REFRESH + b"&_charset_=utf-7",
    "both grants": REFRESH + b"&device_code=a",
    "both grants, the other way": DEVICE + b"&refresh_token=a",
    "a device without its code": DEVICE.partition(b"&")[0],
    "a device with an empty code": DEVICE.partition(b"&")[0] + b"&device_code=",
    "a device with a user's code": DEVICE + b"&user_code=WDJB-MJHT",
    "a device with a password": DEVICE + b"&password=b",
    "two devices": DEVICE + b"&device_code=b",
    "another device grant": DEVICE.replace(b"device_code&", b"device%5Fcode&"),
    "a device grant escaped twice": DEVICE.replace(b"%3A", b"%253A"),
    "a device grant in another case": DEVICE.replace(b"urn", b"URN"),
}


# The body is the most harmless there is, as bytes: the charset makes it another.
UTF7 = b"client_id=x+ACY-grant_type+AD0-password+ACY-username+AD0-a+ACY-password+AD0-b&" + REFRESH


@pytest.mark.parametrize("body", [*GOOD, UTF7])
def test_a_request_for_a_refresh_is_known(body: bytes) -> None:
    assert excusable_errors(body) == LAPSED


@pytest.mark.parametrize("body", GOOD_DEVICES)
def test_a_device_that_asks_is_known(body: bytes) -> None:
    assert excusable_errors(body) == WAITING


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_may_be_read_otherwise_is_none(body: bytes) -> None:
    assert excusable_errors(body) == NOTHING


def test_the_manual_names_what_is_known() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()

    def named(row: str) -> set[bytes]:
        (cell,) = re.findall(rf"^\| {row} \| (.*) \|$", manual, re.MULTILINE)
        return {name.encode() for name in re.findall(r"`([a-z_]+)(?:=[^`]*)?`", cell)}

    assert named("names for both") | named("for a refresh") == REFRESH_NAMES
    assert named("names for both") | named("for a device") == DEVICE_NAMES


parts = st.sampled_from(
    b"grant_type refresh_token password grant%5ftype = & + ; % [] a \0 client_id= %26 %3B %25 26 %3D".split(b" ")
)


@given(st.lists(parts, max_size=14).map(b"".join))
def test_what_is_known_is_one_form_to_a_lenient_reader(added: bytes) -> None:
    """Whatever is put behind a request for a refresh: it is none, or no reader sees another grant in it."""
    body = REFRESH + added
    if excusable_errors(body):
        assert excusable_errors(body) == LAPSED
        once = unquote_plus(body.decode("latin-1"))
        for text in (body.decode("latin-1"), once, unquote_plus(once)):
            for separator in "&;":
                read = parse_qsl(text, keep_blank_values=True, separator=separator)
                names = [name for name, _ in read if "grant" in name.lower() or "password" in name.lower()]
                assert names == ["grant_type"]


@pytest.mark.parametrize(
    "said",
    [
        FORM,
        FORM.lower(),
        FORM + b"; charset=utf-8",
        FORM + b";charset=UTF-8",
        FORM + b' ; charset="utf-8"',
        FORM + b"; charset=US-ASCII",
        FORM + b"\r\nAccept: application/json\r\nAccept-Language: de\r\nAuthorization: Basic YTpi",
    ],
)
def test_a_head_of_a_form_is_known(said: bytes) -> None:
    assert is_form(PLAIN_HEAD % said)


READ_OTHERWISE = {
    "UTF-7": FORM + b"; charset=utf-7",
    "UTF-16": FORM + b"; charset=utf-16le",
    "EBCDIC": FORM + b"; charset=cp037",
    "two charsets": FORM + b"; charset=utf-8; charset=utf-7",
    "another parameter": FORM + b"; x=y",
    "a charset under another name": FORM + b"; charset*=utf-8''utf-7",
    "half a parameter": FORM + b";",
    "a quote that stays open": FORM + b'; charset="utf-8',
    "a list of types": FORM + b", application/json",
    "two types": FORM + b"\r\nContent-Type: application/json",
    "the same twice": FORM + b"\r\n" + FORM,
    "JSON": b"Content-Type: application/json",
    "several parts": b"Content-Type: multipart/form-data; boundary=b",
    "text": b"Content-Type: text/plain",
    "no type": b"Accept: */*",
    "an empty type": b"Content-Type:",
    "a type in another spelling": FORM + b"\r\nContent.Type: application/json",
    "a compressed form": FORM + b"\r\nContent-Encoding: deflate",
    "a coding that is none": FORM + b"\r\ncontent-encoding: identity",
    "a language": FORM + b"\r\nContent-Language: de",
    "a range": FORM + b"\r\nContent-Range: bytes 0-8/9",
    "a coding of mail": FORM + b"\r\nContent-Transfer-Encoding: base64",
}


@pytest.mark.parametrize("said", READ_OTHERWISE.values(), ids=READ_OTHERWISE.keys())
def test_a_body_that_may_be_read_otherwise_is_no_form(said: bytes) -> None:
    assert not is_form(PLAIN_HEAD % said)
    assert not holds([PLAIN_HEAD % said, REFRESH])


@pytest.mark.parametrize(
    ("start", "known"),
    [
        (b"POST /oauth/v2/token", True),
        (b"POST /token", True),
        (b"POST /realms/koder/protocol/openid-connect/token", True),
        (b"PUT /oauth/v2/token", False),
        (b"post /oauth/v2/token", False),
        (b"GET /oauth/v2/token", False),
        (b"POST /oauth/v2/revoke", False),
        (b"POST /v1/users/7/password", False),
        (b"POST /oauth/v2/token/", False),
        (b"POST /oauth/v2/token/7", False),
        (b"POST /oauth/v2//token", False),
        (b"POST /oauth/v2/Token", False),
        (b"POST /oauth/v2/xtoken", False),
        (b"POST /oauth/v2/%74oken", False),
        (b"POST /v1/users/x%2Ftoken", False),
        (b"POST /oauth/v2/token;grant_type=password", False),
        (b"POST /oauth/v2;grant_type=password/token", False),
        (b"POST /oauth/v2/token?grant_type=password", False),
        (b"POST /oauth/v2/token?", False),
        (b"POST /oauth/v2/token#", False),
        (b"POST /v1/auth?/token", False),
        (b"POST http://x/oauth/v2/token", False),
        (b"POST token", False),
    ],
)
def test_only_a_token_endpoint_is_asked_so(start: bytes, known: bool) -> None:
    assert is_form(HEAD.replace(b"POST /oauth/v2/token", start)) is known


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (EXPIRED, "invalid_grant"),
        (b' { "error" : "invalid_grant" }\n', "invalid_grant"),
        (b'{"detail":{"error":"slow_down"},"error":"invalid_client"}', "invalid_client"),
        (b'{"\\u0065rror":"slow_down"}', "slow_down"),
        (b'{"error":"invalid_client","error":"slow_down"}', None),
        (b'{"error":"slow_down","\\u0065rror":"invalid_client"}', None),
        (b'{"error_description":"\\"error\\":\\"invalid_grant\\""}', None),
        (b'{"detail":{"error":"slow_down"}}', None),
        (b'{"detail":[{"error":"slow_down"}]}', None),
        (b'[{"error":"slow_down"}]', None),
        (b'["error","slow_down"]', None),
        (b'[["error","slow_down"]]', None),
        (b'"error"', None),
        (b'{"error":["slow_down"]}', None),
        (b'{"error":{"error":"slow_down"}}', None),
        (b'{"error":null}', None),
        (b'{"error":"slow_down"', None),
        (b'{"error":"slow_down"}}', None),
        (b'x{"error":"slow_down"}', None),
        (b"error=slow_down", None),
        ('{"error":"slow_down"}'.encode("utf-16"), None),
        (b'\xef\xbb\xbf{"error":"slow_down"}', None),
        (b'{"error":"slow_down","x":"\xff"}', None),
        (b"[" * 4096, None),
        (b'{"a":' * 800, None),
        (b'{"a":%b}' % (b"9" * 4090), None),
        (b"", None),
    ],
)
def test_the_error_is_a_member_of_its_own(answer: bytes, error: str | None) -> None:
    assert error_of(answer) == error


@given(st.dictionaries(st.sampled_from(["error", "Error", "message", "state"]), st.text()))
def test_what_is_repeated_of_a_request_is_no_error(members: dict[str, str]) -> None:
    assert error_of(json.dumps(members).encode()) == members.get("error")


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        (JSON, True),
        ([b"Server: x\r\n", b"content-type: application/json; charset=UTF-8\r\n"], True),
        ([], False),
        ([b"Content-Type: text/html\r\n"], False),
        ([b"Content-Type: application/jsonp\r\n"], False),
        ([b"Content-Type: application/problem+json\r\n"], False),
        ([*JSON, *JSON], False),
        ([*JSON, b"Content-Type: text/html\r\n"], False),
        ([*JSON, b"Content-Encoding: gzip\r\n"], False),
    ],
)
def test_only_json_has_an_error(lines: list[bytes], known: bool) -> None:
    assert is_json(lines) is known
    assert (excuse_for([HEAD, REFRESH], False, lines) is not None) is known


@pytest.mark.parametrize(
    ("body", "answer", "excused"),
    [
        (REFRESH, EXPIRED, True),
        (REFRESH, b'{"error":"invalid_client"}', False),
        (REFRESH, b'{"error":"invalid_request"}', False),
        (REFRESH, b'{"error":["invalid_grant"]}', False),
        (REFRESH, PENDING, True),
        (b"", PENDING, True),
        (b"grant_type=password&username=a&password=b", PENDING, True),
        (b"grant_type=password&username=a&password=b", b'{"error":"interaction_required"}', True),
        (b"grant_type=password&username=a&password=b", b'{"error":"use_dpop_nonce"}', True),
        (b"grant_type=password&username=a&password=b", b'{"error":"slow_down"}', True),
        (b"grant_type=password&username=a&password=b", b'{"error":"slow_down","error":"slow_down"}', False),
        (b"grant_type=password&username=a&password=b", b'{"error":["slow_down"]}', False),
        (b"grant_type=password&username=a&password=b", b'{"x":{"error":"slow_down"}}', False),
        (b"grant_type=password&username=a&password=b", b'{"Error":"slow_down"}', False),
        (b"grant_type=password&username=a&password=b", b'{"error":"expired_token"}', False),
        (b"grant_type=password&username=a&password=b", b'{"error":"login_required"}', False),
        (REFRESH, b'{"error":"expired_token"}', False),
        (REFRESH, b"", False),
        (REFRESH, b"{}", False),
        (DEVICE, PENDING, True),
        (DEVICE, b'{"error":"slow_down"}', True),
        (DEVICE, b'{"error":"expired_token"}', True),
        (DEVICE, EXPIRED, False),
        (DEVICE, b'{"error":"access_denied"}', False),
        (DEVICE, b'{"error":"invalid_client","error_description":"slow_down"}', False),
    ],
)
def test_the_answer_decides_too(body: bytes, answer: bytes, excused: bool) -> None:
    excuse = excuse_for([HEAD, body[:9], body[9:]], False, JSON)
    assert excuse is not None
    for at in range(len(answer)):
        excuse.add(answer[at : at + 1])
    assert excuse.holds is excused


def test_a_chunked_form_is_known_but_for_its_trailers() -> None:
    pieces = [chunk(REFRESH[at : at + 1]) for at in range(len(REFRESH))]
    assert holds([HEAD, *pieces, LAST_CHUNK], chunked=True)
    assert not holds([HEAD, *pieces, b"0\r\nX-A: b\r\n\r\n"], chunked=True)
    assert not holds([HEAD, *pieces, LAST_CHUNK])


def test_no_body_is_no_form() -> None:
    for sent in ([], [HEAD], [HEAD, b""]):
        assert not holds(sent)
        assert holds(sent, PENDING)
    assert not holds([HEAD, LAST_CHUNK], chunked=True)


def test_a_long_answer_is_not_looked_at() -> None:
    for length, excused in (LONGEST_ANSWER, True), (LONGEST_ANSWER + 1, False):
        excuse = Excuse(frozenset(LAPSED))
        excuse.add(EXPIRED)
        excuse.add(b" " * (length - len(EXPIRED)))
        excuse.add(b"")
        assert excuse.holds is excused


@pytest.mark.parametrize("request_known", [True, False])
def test_of_an_answer_to_any_request_less_is_looked_at(request_known: bool) -> None:
    for length, excused in (SHORT_ANSWER, True), (SHORT_ANSWER + 1, False):
        assert holds([HEAD, REFRESH] if request_known else [], PENDING.ljust(length)) is excused
    # A device's poll is known to be one, and its answer may be longer.
    assert holds([HEAD, DEVICE], PENDING.ljust(LONGEST_ANSWER))


# -- through the gateway

WRONG = b'{"error":"invalid_grant","error_description":"no: slow_down, \\"error\\":\\"slow_down\\""}'
TYPE = b"application/x-www-form-urlencoded"
# What is asked for (the end of the path, the method, Content-Type and other fields, the body), and the answer.
Asked = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bytes]


def asked(
    body: bytes = REFRESH,
    answer: bytes = EXPIRED,
    *,
    end: bytes = b"token",
    method: bytes = b"POST",
    types: tuple[bytes, ...] = (TYPE,),
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> Asked:
    """A request for new tokens, or what pretends to be one."""
    return end, method, [*((b"Content-Type", each) for each in types), *more], body, answer


EXCUSED = {
    "a refresh": asked(),
    "a refresh that names its charset": asked(types=(TYPE + b"; charset=UTF-8",)),
    "a refresh with a large head": asked(more=((b"Authorization", b"Basic " + b"a" * 3000),)),
    "a device that waits": asked(DEVICE, PENDING),
    "a device that is too fast": asked(DEVICE, b'{"error":"slow_down"}'),
    "a device that waited too long": asked(DEVICE, b'{"error":"expired_token"}'),
    "a password that may wait": asked(b"grant_type=password&username=a&password=b", PENDING),
    "a device's code that may be JSON": asked(DEVICE, PENDING, types=(b"application/json",)),
    "a device elsewhere": asked(DEVICE, PENDING, end=b"device_authorization"),
    "a user who has to do something": asked(answer=b'{"error":"interaction_required"}', end=b"login", method=b"PUT"),
    "a proof without a nonce": asked(answer=b'{"error":"use_dpop_nonce"}'),
}
CHARGED = {
    "two grants": asked(BAD["two grants"]),
    "UTF-7": asked(UTF7, types=(TYPE + b"; charset=utf-7",)),
    "UTF-16": asked(types=(TYPE + b"; charset=utf-16le",)),
    "UTF-7 in a large head": asked(
        UTF7, types=(TYPE + b"; charset=utf-7",), more=((b"Authorization", b"Basic " + b"a" * 3000),)
    ),
    "JSON": asked(types=(b"application/json",)),
    "several parts": asked(types=(b"multipart/form-data; boundary=b",)),
    "no type": asked(types=()),
    "two types": asked(types=(TYPE, b"application/json")),
    "two types, the other way": asked(types=(b"application/json", TYPE)),
    "a list of types": asked(types=(TYPE + b", application/json",)),
    "deflate": asked(more=((b"Content-Encoding", b"deflate"),)),
    "an encoding of none": asked(more=((b"Content-Encoding", b"identity"),)),
    "a language": asked(more=((b"Content-Language", b"x"),)),
    "another method": asked(method=b"PUT"),
    "a query": asked(end=b"token?grant_type=password"),
    "a parameter": asked(end=b"token;grant_type=password"),
    "an escape": asked(end=b"%74oken"),
    "another case": asked(end=b"Token"),
    "below": asked(end=b"token/7"),
    "a password": asked(end=b"password"),
    "a revocation": asked(end=b"revoke"),
    "a guess that is repeated": asked(b"grant_type=password&username=slow_down&password=b", WRONG),
    "a device with a wrong secret": asked(DEVICE, b'{"error":"invalid_client","error_description":"slow_down"}'),
    "a long answer": asked(b"grant_type=password&username=a&password=b", PENDING.ljust(SHORT_ANSWER + 1)),
    "two errors": asked(DEVICE, b'{"error":"invalid_client","error":"slow_down"}'),
    "an error further down": asked(DEVICE, b'{"message":{"error":"slow_down"}}'),
    "no JSON": asked(DEVICE, b'<p>"error":"slow_down"</p>'),
}
CASES = {
    **EXCUSED,
    **CHARGED,
    **dict.fromkeys(("an answer of another type", "a coded answer", "a trailer", "no trailer"), asked()),
}
NUMBERS = {name: number for number, name in enumerate(CASES)}
ANSWER_FIELDS = {
    "an answer of another type": b"Content-Type: text/html\r\n",
    "a coded answer": b"Content-Type: application/json\r\nContent-Encoding: x\r\n",
}
LIMITS = "".join(
    f"""
[[limits]]
name = "{way}-{number}"
rate = "1/h"
burst = 2
paths = ["/v1/users/{way}/{number}"]
charge = "failures"
"""
    for way in WAYS
    for number in NUMBERS.values()
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    settings = SETTINGS.replace("limits = []\n", "") + LIMITS
    with open_doors(tmp_path_factory.mktemp("gateway"), settings) as doors:
        yield doors


def prepared(doors: Doors, way: str, name: str) -> bytes:
    """The target of a case, which is answered from here on."""
    end, answer = CASES[name][0], CASES[name][-1]
    target = b"/v1/users/%b/%d/%b" % (way.encode(), NUMBERS[name], end)
    fields = ANSWER_FIELDS.get(name, b"Content-Type: application/json;charset=UTF-8\r\n")
    doors.origin.answers[target.partition(b"?")[0]] = (
        b"HTTP/1.1 400 Bad Request\r\n%bContent-Length: %d\r\n\r\n%b"
        % (
            fields,
            len(answer),
            answer,
        )
    )
    return target


def statuses(doors: Doors, way: str, name: str, many: int) -> list[int]:
    """What is answered to so many requests, one after the other."""
    target = prepared(doors, way, name)
    _, method, fields, body, _ = CASES[name]
    return [doors.ask(way, target, fields, method=method, body=body).status for _ in range(many)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", EXCUSED)
def test_what_is_no_guess_is_charged_on_no_way_in(name: str, way: str, doors: Doors) -> None:
    assert statuses(doors, way, name, 5) == [400] * 5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*CHARGED, *ANSWER_FIELDS])
def test_what_may_be_a_guess_is_charged_on_every_way_in(name: str, way: str, doors: Doors) -> None:
    assert statuses(doors, way, name, 3) == [400, 400, 429]


TRAILERS = [([], [400] * 4), ([(b"x-a", b"b")], [400, 400, 429, 429])]


@pytest.mark.parametrize(("trailers", "expected"), TRAILERS)
def test_a_form_with_a_trailer_is_charged(
    trailers: list[tuple[bytes, bytes]], expected: list[int], doors: Doors
) -> None:
    target = prepared(doors, "http1", "a trailer" if trailers else "no trailer")
    lines = FORM + b"\r\nTransfer-Encoding: chunked\r\n"
    end = b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in trailers)
    got = []
    for _ in range(4):
        with connect(doors.ports[0], secure=True) as client:
            client.send(request(target, b"POST", lines) + chunk(REFRESH) + end)
            got.append(client.answer(b"POST").status)
    assert got == expected


@pytest.mark.parametrize(("trailers", "expected"), TRAILERS)
def test_a_form_of_unknown_length_is_charged_with_a_trailer(
    trailers: list[tuple[bytes, bytes]], expected: list[int], doors: Doors
) -> None:
    target = prepared(doors, "http2", "a trailer" if trailers else "no trailer")
    head = [(b":method", b"POST"), (b":scheme", b"https"), (b":path", target), (b":authority", HOST)]
    head.append((b"content-type", TYPE))
    got = []
    for _ in range(4):
        with Http2Client.connect(doors.ports[0], HOST) as client:
            client.start()
            client.send(in_frames(1, block(head), end=False), data(1, REFRESH, end=not trailers))
            if trailers:
                client.send(in_frames(1, block(trailers), end=True))
            got.append(client.answer(1).status)
    assert got == expected
