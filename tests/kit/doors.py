"""The three ways into one gateway, over sockets: HTTP/1.1 and HTTP/2 over TLS, and a stock `twisted.web` Site that
its tree is mounted in. All lead to one recording service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.http1 import Message
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import block, data, in_frames
from tests.kit.recording import HOST, SETTINGS, TENANTS, Recorded, connect, request
from tests.kit.services import RecordingService

WAYS = ("http1", "http2", "stock")
Pairs = Sequence[tuple[bytes, bytes]]

_PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import Site
from koder_gateway import Gateway, load
config, *ports = sys.argv[1:]
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
class Mounted(Resource):
    # Says what it has been asked, with the status and in the pieces that its query names.
    isLeaf = True
    def render(self, request):
        asked = dict(part.split(b"=") for part in request.uri.partition(b"?")[2].split(b"&") if part)
        request.setResponseCode(int(asked.get(b"status", b"200")))
        request.setHeader(b"x-a", b"b")
        fields = sorted((name.lower(), values) for name, values in request.requestHeaders.getAllRawHeaders())
        kept = [pair for pair in fields if pair[0].startswith((b"x-m", b"content-", b"transfer-", b"cookie"))]
        said = repr((request.method, request.uri, kept, request.content.read())).encode()
        if asked.get(b"pieces") == b"2":
            request.write(said[:9])
            request.write(said[9:])
            request.finish()
            return 1
        return b"" if asked.get(b"pieces") == b"0" else said
gateway = Gateway(load(config), ports=ports, mounts={"/mounted": Mounted()})
gateway.startService()
site = Site(gateway.resource, parsePOSTFormSubmission=False)
reactor.listenTCP(0, site, interface="127.0.0.1")
reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
reactor.run()
"""


@dataclass
class Answer:
    """A final answer, whichever way it came; names of fields are in lower case."""

    status: int
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of this name."""
        return [value for each, value in self.fields if each == name]

    def words(self, name: bytes) -> set[bytes]:
        """The members of a list, in lower case."""
        return {word.strip().lower() for value in self.values(name) for word in value.split(b",")}


class Doors(Recorded):
    """A gateway in a process of its own, whose tree a stock Site serves as well."""

    def __init__(
        self, folder: Path, settings: str, tenants: str, origin: RecordingService, further: Sequence[str]
    ) -> None:
        super().__init__(folder, settings, tenants, origin, secure=True, further=further, program=_PROGRAM)
        first, *more = self.ports
        self.ports = [first, self.admin, *more]
        """That of TLS, of the stock Site, and of further endpoints."""

    def ask(
        self,
        way: str,
        target: bytes = b"/v1/users",
        fields: Pairs = (),
        *,
        method: bytes = b"GET",
        host: bytes = HOST,
        body: bytes = b"",
    ) -> Answer:
        """What is answered to this request, as `way` it comes, on a connection of its own."""
        if way == "http2":
            return self._ask_http2(target, fields, method, host, body)
        lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
        with connect(self.ports[way == "stock"], secure=way == "http1") as client:
            client.send(request(target, method, lines, body, host))
            return plain(client.answer(method))

    def _ask_http2(self, target: bytes, fields: Pairs, method: bytes, host: bytes, body: bytes) -> Answer:
        head = [(b":method", method), (b":scheme", b"https"), (b":path", target), (b":authority", host)]
        head += [(name.lower(), value) for name, value in fields]
        if body:
            head.append((b"content-length", b"%d" % len(body)))
        with Http2Client.connect(self.ports[0], HOST) as client:
            client.start()
            client.send(in_frames(1, block(head), end=not body), data(1, body, end=True) if body else b"")
            answer = client.answer(1)
            return Answer(answer.status, [pair for pair in answer.fields if pair[0] != b":status"], answer.body)

    def only(self) -> Message:
        """The one message that the service has received; from here on it remembers nothing."""
        (message,) = self.received()
        self.origin.forget()
        return message


def plain(message: Message) -> Answer:
    """An answer over HTTP/1.1."""
    fields = [(name.lower(), value) for name, value in message.fields]
    return Answer(message.status, fields, message.body)


@contextmanager
def open_doors(
    folder: Path, settings: str = SETTINGS, tenants: str = TENANTS, *, further: Sequence[str] = ()
) -> Iterator[Doors]:
    """A gateway before a recording service of its own. `further` are endpoints beside that of TLS."""
    origin = RecordingService()
    try:
        with Doors(folder, settings, tenants, origin, further) as doors:
            yield doors
    finally:
        origin.stop()
