"""A real Redis for a test: in a process of its own, on a port or a socket, over TLS, with a password or too little
memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.kit.authority import Pair
from tests.kit.gateways import kill_quietly
from tests.kit.ports import free_ports
from tests.kit.waiting import PATIENCE, until


class Redis:
    """A redis-server below `folder`. A context manager: left, the process has ended.

    `options` are lines of its configuration file. It listens on a port that was free a moment ago (a stopped one that
    is started again must have the same one, so the kernel cannot choose) and on the socket `path`; with `pair` its
    port is for TLS. Values are kept in memory alone.
    """

    def __init__(self, folder: Path, *options: str, pair: Pair | None = None, password: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.path = folder / "redis.sock"
        self.password = password
        (self.port,) = free_ports(1)
        lines = ["bind 127.0.0.1", f"unixsocket {self.path}", "save ''", "appendonly no", f"dir {folder}"]
        lines.append("daemonize no")
        if pair is None:
            lines.append(f"port {self.port}")
        else:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {pair.certificate}", f"tls-key-file {pair.key}"]
        if password:
            lines.append(f"requirepass {password}")
        (folder / "redis.conf").write_text("\n".join([*lines, *options, ""]))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", str(self._folder / "redis.conf")], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until(self._answers, "Redis serves")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            kill_quietly(self._process)
            self._process = None

    def hang(self) -> None:
        """Let it answer nothing, until it goes on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a hang."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, *words: str | bytes) -> Any:
        """What it answers to a command: text, a number, None, or a list of these; an error as `RuntimeError`."""
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(PATIENCE)
            plain.connect(str(self.path))
            with plain.makefile("rwb") as stream:
                if self.password:
                    _send(stream, ("AUTH", self.password))
                    _read(stream)
                _send(stream, words)
                return _read(stream)

    def keys(self) -> list[str]:
        """All its keys, in order."""
        return sorted(self.ask("KEYS", "*"))

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def _send(stream: Any, words: tuple[str | bytes, ...]) -> None:
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    stream.write(b"*%d\r\n" % len(encoded))
    for word in encoded:
        stream.write(b"$%d\r\n%b\r\n" % (len(word), word))
    stream.flush()


def _read(stream: Any) -> Any:
    line = stream.readline()
    if not line:
        raise ConnectionError("Redis has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if rest == b"-1":
            return None
        return stream.read(int(rest) + 2)[:-2].decode("utf-8", "backslashreplace")
    return None if rest == b"-1" else [_read(stream) for _ in range(int(rest))]
