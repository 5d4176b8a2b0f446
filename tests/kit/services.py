"""Services behind a gateway, on ports of their own: one that each test plays, and one that records.

A test that looks at what a service gets, byte for byte and in a fixed order, has the recording one, which is a single
thread and so can say when it has read all there is. A test in which the service does something has an origin: its
script runs in a thread for each connection, and may block.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

from tests.kit.clients import reset
from tests.kit.http1 import Ended, IncompleteError, Malformed, Message, Reader, read_message
from tests.kit.waiting import PATIENCE

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\norigin"


class Peer:
    """The gateway, as a service sees it on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.trailers: list[bytes] = []
        self._reader = Reader(self._receive)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            raise Ended("reset") from None
        if not data:
            raise Ended("closed")
        return data

    def more(self) -> bytes:
        """What comes next; empty at the end, however the gateway ends."""
        try:
            return self._reader.some()
        except Ended:
            return b""

    def take(self) -> bytes:
        """What has come and belongs to no message that was read."""
        return self._reader.take()

    def head(self) -> Message | None:
        """The next request's head; None when the gateway has closed instead, or has asked for nothing for as long as
        any service waits."""
        try:
            return self._reader.head()
        except (Ended, TimeoutError):
            assert not self._reader.begun, f"the head ends within {self._reader.begun!r}"
            return None

    def body(self, received: Message) -> bytes:
        """The whole body of a request."""
        return b"".join(self.pieces(received))

    def pieces(self, received: Message) -> Iterator[bytes]:
        """The body as it comes; ends early, with an empty piece, when the gateway goes away."""
        try:
            yield from self._reader.pieces(received)
        except Ended:
            assert received.value(b"transfer-encoding") is None, "the body ends within a chunk"
            yield b""
        self.trailers = [b"%b: %b" % pair for pair in received.trailers]

    def finish(self) -> None:
        """No more comes from the service, which still reads, unless the gateway has gone already."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        reset(self.socket)

    def until_gone(self) -> None:
        """Read and forget until the gateway closes."""
        while self.more():
            pass

    def serve(self, body: bytes = b"fresh") -> None:
        """Answer every further request properly, until the gateway closes."""
        while (received := self.head()) is not None:
            self.body(received)
            self.send(answer(received.target + b" " + body))


def answer(body: bytes = b"", *fields: str, status: str = "200 OK") -> bytes:
    """A proper answer's bytes."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Origin:
    """A service on a loopback port: every connection is played by `play(peer, number)` in a thread of its own.

    `number` counts connections from 0. A context manager: left, every connection is closed, and what a play
    found wrong is raised. With `listening` false connections are refused until `listen` is called.
    """

    def __init__(
        self, play: Callable[[Peer, int], object] = lambda peer, number: peer.serve(), *, listening: bool = True
    ) -> None:
        self.play = play
        self.accepted = 0
        self.faults: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        if listening:
            self.listen()

    def listen(self) -> None:
        """Accept connections from now on."""
        self.socket.listen(1024)
        self._spawn(self._accept)

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()
        if kind is None:
            for fault in self.faults:
                raise fault

    @property
    def open(self) -> int:
        """Connections that are being played."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._closing = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.socket.close()

    def hang_up(self) -> None:
        """End every connection, as a service does that is started anew."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                number, self.accepted = self.accepted, self.accepted + 1
                self._open.add(connection)
            self._spawn(self._run, connection, number)

    def _run(self, connection: socket.socket, number: int) -> None:
        try:
            self.play(Peer(connection), number)
        except ConnectionError:
            pass  # the gateway has gone, as it may at any time; what a client got is looked at on its side
        except BaseException as error:
            if not self._closing:
                self.faults.append(error)
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()


def read_request(data: bytes) -> tuple[Message, bytes] | None:
    """One whole request, and what comes after it; None while it is incomplete. Raises Malformed."""
    try:
        message, rest = read_message(data)
    except IncompleteError:
        return None
    if len(message.values(b"host")) != 1:
        raise Malformed("not one Host")
    return message, rest


def _begun(data: bytes) -> Message:
    """The head of a request that has no body yet."""
    return Reader(iter([data]).__next__).head()


class RecordingService:
    """Keeps every request that it gets, read strictly.

    `answers` holds what to say by path, `ANSWER` otherwise; a path in `held` is only answered after `release`.
    `faults` tells what came that was no message; `unfinished` what is still coming.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.faults: list[str] = []
        self.answers: dict[bytes, bytes] = {}
        self.held: set[bytes] = set()
        self.connections = 0
        self._waiting: list[tuple[socket.socket, Message]] = []
        self._buffers: dict[socket.socket, bytes] = {}
        self._numbers: dict[socket.socket, int] = {}
        self._asked: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        for each in (self._listener, self._woken):
            each.setblocking(False)
            self._selector.register(each, selectors.EVENT_READ)
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._running = False
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._buffers, self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()

    def settle(self) -> None:
        """Return once everything that lies in the kernel's buffers has been recorded."""
        done = threading.Event()
        self._asked.append(done.set)
        self._wake.send(b"x")
        assert done.wait(PATIENCE), "the recording service stands still"

    def release(self, path: bytes) -> None:
        """Answer what waits for this path, from now on at once."""

        def answer() -> None:
            self.held.discard(path)
            ready = [entry for entry in self._waiting if entry[1].target == path]
            self._waiting = [entry for entry in self._waiting if entry[1].target != path]
            for connection, message in ready:
                self._answer(connection, message)

        self._asked.append(answer)
        self._wake.send(b"x")

    def wait_for(self, path: bytes) -> Message:
        """The first message for this path, as soon as it is here."""
        with self._changed:
            found = self._changed.wait_for(lambda: [m for m in self.messages if m.target == path], PATIENCE)
        assert found, f"nothing came for {path!r}"
        return found[0]

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once the condition holds; it is looked at whenever something has come or gone."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "the service never came to that"

    def forget(self) -> None:
        """Begin a new record."""
        self.messages, self.faults = [], []

    @property
    def unfinished(self) -> list[bytes]:
        """What has come of messages that are not complete."""
        return [data for data in self._buffers.values() if data]

    def _run(self) -> None:
        while self._running:
            asked, self._asked = self._asked, []
            while True:
                events = self._selector.select(0 if asked else None)
                for key, _ in events:
                    self._serve(key.fileobj)  # type: ignore[arg-type]
                with self._changed:
                    self._changed.notify_all()
                if not asked or not events:
                    break
            for each in asked:
                each()

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._woken:
            ready.recv(4096)
        elif ready is self._listener:
            connection, _ = ready.accept()
            self._buffers[connection] = b""
            self._numbers[connection] = self.connections = self.connections + 1
            self._selector.register(connection, selectors.EVENT_READ)
        else:
            try:
                data = ready.recv(1 << 20)
            except ConnectionError:
                data = b""
            if data:
                self._take(ready, self._buffers[ready] + data)
            else:
                self._close(ready)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        self._waiting = [entry for entry in self._waiting if entry[0] is not connection]
        del self._buffers[connection]
        connection.close()

    def _take(self, connection: socket.socket, data: bytes) -> None:
        try:
            found = read_request(data)
            if found is None:
                self._invite(connection, data)
                self._buffers[connection] = data
                return
            message, rest = found
            if rest:
                raise Malformed(f"{rest!r} after the end of a message")
        except Malformed as error:
            self.faults.append(f"{error} in {data!r}")
            self._close(connection)
            return
        self._buffers[connection] = b""
        message.connection = self._numbers[connection]
        self.messages.append(message)
        if message.target in self.held:
            self._waiting.append((connection, message))
        else:
            self._answer(connection, message)

    def _invite(self, connection: socket.socket, data: bytes) -> None:
        """Ask for the body of a request that waits to be asked."""
        first = not self._buffers[connection].count(b"\r\n\r\n") and data.endswith(b"\r\n\r\n")
        if first and _begun(data).values(b"expect"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, connection: socket.socket, message: Message) -> None:
        answer = self.answers.get(message.target.partition(b"?")[0], ANSWER)
        if message.method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        try:
            connection.sendall(answer)
        except ConnectionError:
            self._close(connection)
