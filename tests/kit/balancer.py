"""A real HAProxy before a gateway. It inherits its listening sockets, so nobody else can take their ports."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.kit.gateways import kill_quietly


@contextmanager
def haproxy(folder: Path, configured: Callable[[Sequence[str]], str], doors: int = 1) -> Iterator[list[int]]:
    """HAProxy with so many listening sockets: their ports. `configured` gives its configuration for what `bind` calls
    them. Who connects before HAProxy is ready waits in the socket."""
    with ExitStack() as held:
        listening = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(doors)]
        path = folder / "haproxy.cfg"
        path.write_text(configured([f"fd@{each.fileno()}" for each in listening]))
        log = held.enter_context((folder / "haproxy.log").open("wb"))
        inherited = [each.fileno() for each in listening]
        process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=log, stderr=log, pass_fds=inherited)
        try:
            yield [each.getsockname()[1] for each in listening]
        finally:
            kill_quietly(process)
