"""A helper process, as the gateway has it: started, written to and heard without blocking, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from ..wire.framed_messages import Messages, framed

T = TypeVar("T")

# It finds this package where this process has, and nothing in the current folder.
_CODE: Final = (
    "import importlib, socket, sys; sys.path.append(sys.argv[1])\n"
    "importlib.import_module(sys.argv[2]).main(socket.socket(fileno=0))\n"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_READ: Final = 1 << 16
_SEND_BUFFER: Final = 1 << 18


class HelperProcess(Generic[T]):
    """One process that runs `main` of `module` with its end of a stream; raises OSError where it cannot be started.

    `terms` are the first message that it gets. It answers with messages of `kind`, of `longest` bytes at most. It has
    none of this process's descriptors but its end of the stream, and ends with this process, however that ends.
    """

    def __init__(self, module: str, terms: msgspec.Struct, kind: type[T], longest: int) -> None:
        near, far = socket.socketpair()
        self._stream = near
        with far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            near.setblocking(False)
            try:
                # It writes nothing but the faults of Python itself, which belong in the gateway's log.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _CODE, _ROOT, module],
                    stdin=far.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                )
            except BaseException:
                near.close()
                raise
        self._messages = Messages(kind, longest)
        # It is short enough for the stream's buffer, or the process says at once that it gets no terms.
        self.write(framed(terms))

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def write(self, data: bytes | memoryview) -> int:
        """Send as much as there is room for; how many bytes that was."""
        try:
            return int(self._stream.send(data))
        except OSError:
            # Full, or gone, which `alive` tells.
            return 0

    def heard(self) -> Iterator[T]:
        """What it has said since this was last asked."""
        try:
            while data := self._stream.recv(_READ):
                yield from self._messages.feed(data)
        except OSError:
            # There is no more.
            return
        except (ValueError, msgspec.MsgspecError):
            # No helper of ours says that.
            self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def end(self) -> None:
        """Close this side of the stream, by which it knows that it is to end; what it must do first is its own."""
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it at once, and close the stream."""
        if self.alive:
            self._process.kill()
            self._process.wait()
        self._stream.close()
