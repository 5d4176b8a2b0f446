"""What one generation of the gateway leaves to the next.

The supervisor's process becomes the new program (execve(2)), and keeps its number, its listening sockets and the old
workers, which drain once the new ones serve. Before that another process tries whether the new program could start.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.python.lockfile import FilesystemLock

from ..ops.control_socket import ControlSocket, LeftControl
from .bound_ports import BoundPort
from .channel import Channel
from .environment import INHERITED, REHEARSAL


@dataclass(slots=True, eq=False)
class OldWorker:
    """A worker of the previous generation."""

    pid: int
    channel: Channel


class OldWorkers:
    """The workers of the generation before, as long as they run."""

    def __init__(self, workers: Iterable[OldWorker] = ()) -> None:
        self._workers = list(workers)
        self.due = math.inf
        """When those that have not ended yet are to be killed, in monotonic seconds."""

    def __bool__(self) -> bool:
        return bool(self._workers)

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [worker.pid for worker in self._workers]

    def end(self, order: str = "end", due: float = math.inf) -> None:
        """Let them drain, until `due`; by the `order` "leave" as those that others have replaced."""
        self.due = due if self._workers else math.inf
        for worker in self._workers:
            worker.channel.send(do=order)

    def kill(self) -> None:
        """Wait no longer."""
        self.due = math.inf
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)

    def ended(self, pid: int) -> bool:
        """A process has ended. Returns whether it was the last of them."""
        ended = [worker for worker in self._workers if worker.pid == pid]
        for worker in ended:
            worker.channel.close()
            self._workers.remove(worker)
        if not self._workers:
            self.due = math.inf
        return bool(ended) and not self._workers

    def close(self) -> None:
        """Close the channels to them, in a process that has nothing to do with them."""
        for worker in self._workers:
            worker.channel.close()


@dataclass(frozen=True, slots=True)
class Generation:
    """What has been left: ports that are bound, and workers. With `rehearsal` this process only tries whether it
    could start, and touches nothing that it was left. `ending`: how many seconds these workers may take to end.
    `control`: where others ask for reloads, and who waits for a verdict."""

    ports: tuple[BoundPort, ...] = ()
    workers: tuple[OldWorker, ...] = ()
    rehearsal: bool = False
    ending: float = math.inf
    control: LeftControl | None = None


# What a first generation is left.
NONE: Final = Generation()


def inherited(environ: MutableMapping[str, str] = os.environ) -> Generation:
    """What this process was left, by its environment, from which it is removed."""
    text = environ.pop(INHERITED, "")
    rehearsal = bool(environ.pop(REHEARSAL, ""))
    if not text:
        return NONE
    left = json.loads(text)
    ports = tuple(_port(each) for each in left["ports"])
    workers = tuple(OldWorker(pid, Channel(socket.socket(fileno=number))) for pid, number in left["workers"])
    # A version before may have left neither.
    ending, control = left.get("ending", math.inf), left.get("control")
    return Generation(ports, workers, rehearsal, ending, None if control is None else LeftControl(*control))


def rehearse(ports: Sequence[BoundPort], longest: int) -> subprocess.Popen[bytes]:
    """Begin to try whether the program, as it is installed now, could start with the present configuration. Returns
    the process, which ends with exit code 0 if it could, else says why it could not; after `longest` seconds SIGALRM
    ends it. Raises OSError."""
    environ = {**os.environ, INHERITED: _text(ports), REHEARSAL: "1"}
    # Not for this one: notices would be taken for the supervisor's.
    environ.pop("NOTIFY_SOCKET", None)
    kept = [port.socket.fileno() for port in ports]
    return subprocess.Popen(
        _command(),
        env=environ,
        pass_fds=kept,
        stdin=subprocess.DEVNULL,
        # The alarm outlives execve(2). There are no threads here that could hold a lock.
        preexec_fn=functools.partial(signal.alarm, longest),
    )


def become(
    ports: Sequence[BoundPort],
    workers: Iterable[tuple[int, Channel]],
    signals: Iterable[int],
    unheard: Callable[[], Iterable[int]],
    ending: float,
    control: ControlSocket | None,
) -> None:
    """Become the new program. Signals that come meanwhile wait until it takes them, and so do those of `unheard`.
    `ending`: how many seconds the workers may take to end. Raises OSError, and then nothing has changed."""
    workers = tuple(workers)
    left = None if control is None else control.left()
    numbers = [*(port.socket.fileno() for port in ports), *(channel.fileno() for _, channel in workers)]
    if left is not None:
        numbers.append(left.descriptor)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in unheard():
        os.kill(os.getpid(), number)
    for number in numbers:
        os.set_inheritable(number, True)
    text = _text(ports, workers, ending, left)
    try:
        os.execve(sys.executable, _command(), {**os.environ, INHERITED: text})  # noqa: S606 (itself)
    except OSError:
        for number in numbers:
            os.set_inheritable(number, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


def _command() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _text(
    ports: Sequence[BoundPort],
    workers: Sequence[tuple[int, Channel]] = (),
    ending: float = 0.0,
    control: LeftControl | None = None,
) -> str:
    left: Mapping[str, Any] = {
        "ports": [[*port.key, port.socket.fileno(), port.path, port.lock is not None] for port in ports],
        "workers": [[pid, channel.fileno()] for pid, channel in workers],
        "ending": ending,
        "control": control,
    }
    return json.dumps(left)


def _port(left: Sequence[Any]) -> BoundPort:
    kind, address, interface, number, path, locked = left
    made = socket.socket(fileno=number)
    made.setblocking(False)
    lock = FilesystemLock(f"{path}.lock") if locked else None
    if lock is not None:
        # It is this process's, which has the same number as before.
        lock.locked = True
    return BoundPort((kind, address, interface), made, path, lock)
