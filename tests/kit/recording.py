"""A gateway before a recording service: what tests ask of it, and what the service got of that, byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess
from tests.kit.http1 import Message
from tests.kit.services import RecordingService

HOST = b"koder.id.koder.dev"
ALLOWED = b"https://app.example.com"
TENANTS = """
[[tenant]]
slug = "koder"
domains = ["login.koder.example"]
cors_origins = ["https://koder.example"]
[[tenant]]
slug = "acme"
[[tenant]]
slug = "globex"
domains = ["login.globex.example"]
status = "suspended"
cors_origins = ["https://globex.example"]
"""
SETTINGS = """
limits = []
[tenants]
registry = "tenants.toml"
[cors]
origins = ["https://app.example.com"]
[requests]
max_body = "16KiB"
allow_trailers = ["X-Checksum", "X-Sum", "X-A", "X-B", "X-Ok"]
[timeouts]
drain = "1s"
[state]
dir = "state"
[log]
file = "access.log"
"""
# What must never be in the log, whatever clients send.
_TROUBLE = re.compile(r"Traceback|Unhandled|#(?:error|critical)|Exception")


def connect(port: int, *, secure: bool = False) -> Client:
    """A client of the default tenant."""
    return Client.connect(port, secure=secure, name=HOST.decode())


def request(
    target: bytes = b"/v1/users", method: bytes = b"GET", fields: bytes = b"", body: bytes = b"", host: bytes = HOST
) -> bytes:
    """A request; `fields` are whole lines, and a body gets its Content-Length."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (method, target, host, fields, length, body)


def configuration(origin: RecordingService, settings: str) -> str:
    """The settings; all services are `origin`, whose address settings that name services write as ORIGIN."""
    if "[services" not in settings:
        names = ("identity", "auth", "oauth2", "session", "admin")
        settings += "[services]\n" + "".join(f'{name} = "ORIGIN"\n' for name in names)
    return settings.replace("ORIGIN", f"http://127.0.0.1:{origin.port}")


class Recorded(GatewayProcess):
    """A gateway in a process of its own, before `origin`; its first port is one of TLS if `secure`."""

    def __init__(
        self,
        folder: Path,
        settings: str,
        tenants: str,
        origin: RecordingService,
        *,
        secure: bool = False,
        further: Sequence[str] = (),
        program: str = "",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tenants.toml").write_text(tenants)
        self.origin = origin
        self.secure = secure
        self._fences = 0
        ports = (self.TLS if secure else self.PLAIN, *further)
        super().__init__(folder, configuration(origin, settings), ports=ports, admin=False, program=program)

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    def client(self) -> Client:
        """A new connection."""
        return connect(self.port, secure=self.secure)

    def received(self) -> list[Message]:
        """What the service has received since it last forgot, once no more of it can be on its way."""
        self._fences += 1
        with self.client() as client:
            client.send(request(b"/v1/users/fence/%d" % self._fences))
            assert client.answer().status == 200
        self.origin.settle()
        assert self.origin.faults == []
        return [message for message in self.origin.messages if not message.target.startswith(b"/v1/users/fence/")]

    def assert_quiet(self) -> None:
        """Nothing of what happened was a surprise to the gateway."""
        assert self.process.poll() is None, self.log()
        assert _TROUBLE.search(self.log()) is None, self.log()


class Running(Recorded):
    """The same with one port, which requests are sent to as bytes."""

    def ask(self, data: bytes, method: bytes = b"GET", piece: int = 0) -> Message:
        """The only answer to these bytes on a connection of their own."""
        with self.client() as client:
            client.send(data, piece)
            return client.answer(method)


@contextmanager
def running(
    folder: Path, settings: str = SETTINGS, tenants: str = TENANTS, *, secure: bool = False
) -> Iterator[Running]:
    """A gateway with these settings before a recording service of its own, until the end of the block.

    All services are that one; settings that name services themselves write its address as ORIGIN.
    """
    origin = RecordingService()
    try:
        with Running(folder, settings, tenants, origin, secure=secure) as gateway:
            yield gateway
    finally:
        origin.stop()
