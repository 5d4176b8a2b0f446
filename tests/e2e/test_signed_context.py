"""X-Koder-Context as services get it, on every way in; and that nobody else's reaches them."""

from __future__ import annotations

import json
import signal
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from koder_gateway.context import VerifiedContext, verify
from koder_gateway.policy.signed_context import public_jwk
from tests.kit.doors import WAYS, Doors, open_doors
from tests.kit.gateways import GatewayProcess
from tests.kit.http1 import Message
from tests.kit.recording import SETTINGS, TENANTS, configuration, connect, request
from tests.kit.services import RecordingService
from tests.kit.signing_keys import ED25519, EDDSA, ES256, P256, private_pem, public_pem, rsa_pem
from tests.kit.waiting import until

NAME = b"x-koder-context"
KEYS = '[context]\nkey_file = "key.pem"\npublished_key_files = ["next.pem"]\n'


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "key.pem").write_bytes(private_pem(ED25519))
    (folder / "next.pem").write_bytes(public_pem(P256))
    settings = SETTINGS + KEYS + '[listen]\ntrusted_proxies = ["127.0.0.1/32"]\n'
    settings = settings.replace('"X-Sum"', '"X-Sum", "X-Other"')
    with open_doors(folder, settings) as doors:
        yield doors


JWKS = {"keys": [public_jwk(EDDSA), public_jwk(ES256)]}


def token(message: Message) -> str:
    (value,) = message.values(NAME)
    return value.decode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [b"koder.id.koder.dev", b"LOGIN.koder.example"])
def test_a_service_can_check_it(way: str, host: bytes, doors: Doors) -> None:
    doors.origin.forget()
    assert doors.ask(way, fields=[(b"x-forwarded-for", b"198.51.100.7")], host=host).status == 200
    message = doors.only()
    found = verify(token(message), JWKS, host=message.one(b"host").decode(), tenant="koder")
    assert found == VerifiedContext("koder", "198.51.100.7", host.decode().lower(), found.issued)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", [NAME, b"X-Koder-Context", b"x.koder.context", b"x~koder-context", b"xkodercontext", b"X-KODER-CONTEXT"]
)
def test_the_clients_own_never_passes(way: str, name: bytes, doors: Doors) -> None:
    doors.origin.forget()
    fields = [(name, b"forged")] if way != "http2" or name.islower() else [(name.lower(), b"forged")]
    if way != "http2":
        fields += [(b"connection", b"x-koder-context"), (b"x_koder_context", b"forged")]
    assert doors.ask(way, fields=fields).status == 200
    message = doors.only()
    assert b"forged" not in [value for _, value in message.fields]
    verify(token(message), JWKS, host="koder.id.koder.dev")


@pytest.mark.parametrize("name", [NAME, b"x.koder.context"])
def test_nor_does_a_trailer(name: bytes, doors: Doors) -> None:
    doors.origin.forget()
    with doors.client() as client:
        client.send(
            b"POST /v1/users HTTP/1.1\r\nHost: koder.id.koder.dev\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nX-Sum: 1\r\n%b: forged\r\n\r\n" % name
        )
        assert client.answer().status == 200
    message = doors.only()
    assert [field for field, _ in message.trailers] == [b"X-Sum"]


@pytest.mark.parametrize("way", WAYS)
def test_a_service_that_mirrors_it_hands_it_to_nobody(way: str, doors: Doors) -> None:
    doors.origin.answers[b"/v1/users/mirror"] = (
        b"HTTP/1.1 200 OK\r\nX-Koder-Context: a.b.c\r\nContent-Length: 0\r\n\r\n"
    )
    answer = doors.ask(way, b"/v1/users/mirror")
    assert (answer.status, answer.values(NAME)) == (200, [])


def test_a_handshake_of_a_websocket_has_it(doors: Doors) -> None:
    doors.origin.forget()
    asks = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    doors.ask("http1", fields=asks)
    verify(token(doors.only()), JWKS, host="koder.id.koder.dev")


def test_requests_on_one_connection_have_the_same_one(doors: Doors) -> None:
    doors.origin.forget()
    with doors.client() as client:
        for _ in range(3):
            client.send(b"GET /v1/users HTTP/1.1\r\nHost: koder.id.koder.dev\r\n\r\n")
            assert client.answer().status == 200
    assert len({token(message) for message in doors.received()}) == 1


def test_it_is_off_without_a_key_and_the_clients_own_never_passes(tmp_path: Path) -> None:
    with open_doors(tmp_path) as doors:
        for way in WAYS:
            doors.origin.forget()
            assert doors.ask(way, fields=[(NAME, b"forged")]).status == 200
            assert doors.only().values(NAME) == []


# -- the keys change


class Rotating(GatewayProcess):
    """A gateway whose keys change, before a recording service."""

    def __init__(self, folder: Path, origin: RecordingService, keys: str) -> None:
        self.origin = origin
        self._settings = configuration(origin, SETTINGS)
        self._reloads = 0
        (folder / "tenants.toml").write_text(TENANTS)
        super().__init__(folder, self._settings + keys)

    def published(self) -> list[str]:
        """The `kid` of each published key."""
        status, body = self.ask_admin("/.well-known/jwks.json")
        assert status == 200
        return [key["kid"] for key in json.loads(body)["keys"]]

    def signed(self) -> str:
        """The `kid` of the key that the next request's context is signed with, checked by the published keys."""
        self.origin.forget()
        with connect(self.ports[0]) as client:
            client.send(request())
            assert client.answer().status == 200
        self.origin.settle()
        (message,) = self.origin.messages
        verify(token(message), json.loads(self.ask_admin("/.well-known/jwks.json")[1]), host="koder.id.koder.dev")
        head = token(message).partition(".")[0]
        return str(json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])

    def reload(self, keys: str, said: str = "reloaded ") -> None:
        """Read these keys; the log says so."""
        self.config.write_text(self._settings + keys)
        before = self.log().count(said)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.log().count(said) > before, said)


FIRST, SECOND = public_jwk(EDDSA)["kid"], public_jwk(ES256)["kid"]


def test_keys_are_changed_step_by_step(tmp_path: Path) -> None:
    """As docs/context.md says, with the signature checked by what is published at that moment; and a file that is no
    key changes nothing."""
    (tmp_path / "first.pem").write_bytes(private_pem(ED25519))
    (tmp_path / "second.pem").write_bytes(private_pem(P256))
    (tmp_path / "rsa.pem").write_bytes(rsa_pem())
    origin = RecordingService()
    try:
        with Rotating(tmp_path, origin, '[context]\nkey_file = "first.pem"\n') as gateway:
            assert (gateway.published(), gateway.signed()) == ([FIRST], FIRST)
            gateway.reload('[context]\nkey_file = "first.pem"\npublished_key_files = ["second.pem"]\n')
            assert (gateway.published(), gateway.signed()) == ([FIRST, SECOND], FIRST)
            gateway.reload('[context]\nkey_file = "second.pem"\npublished_key_files = ["first.pem"]\n')
            assert (gateway.published(), gateway.signed()) == ([SECOND, FIRST], SECOND)
            gateway.reload('[context]\nkey_file = "rsa.pem"\n', "reload refused, nothing has changed: ")
            assert 'context.key_file: "rsa.pem": the private key is of the kind RSA; ' in gateway.log()
            assert (gateway.published(), gateway.signed()) == ([SECOND, FIRST], SECOND)
            gateway.reload('[context]\nkey_file = "second.pem"\n')
            assert (gateway.published(), gateway.signed()) == ([SECOND], SECOND)
            gateway.reload("")
            status, body = gateway.ask_admin("/.well-known/jwks.json")
            assert (status, json.loads(body)["detail"]) == (404, "There are no keys: context.key_file is not set.")
    finally:
        origin.stop()
