"""How throughput grows with the number of workers, and how evenly connections spread over them.

    python benchmarks/workers.py [--workers 1,2] [--seconds N] [--connections N] [--pipeline N] [--fields N]

wrk asks for a path without a route over plain HTTP, so that no service takes part. Beside requests a second there is
the processor time that each request costs all workers together, which a machine whose processors are busy with the
load as well does not distort: where that time does not grow with the workers, throughput grows with the processors
that they have to themselves. Where the load runs on the same processors,
`--pipeline` (requests sent at once) and `--fields` (header fields more) leave it the smaller part of the work: it
sends the same bytes again, and counts. `full` is the share of TLS handshakes that were full although the client had a
session of another connection.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
limits = []
[tenants]
base_domain = "id.localhost"
[listen]
port = ["tcp:{plain}:interface=127.0.0.1", "ssl:{tls}:interface=127.0.0.1"]
workers = {workers}
[limits_store]
url = "memory:"
[log]
access = false
[state]
dir = "state"
"""
# Requests of one write, each with the fields that a browser's might have.
SCRIPT = """
function init(args)
    for number = 1, {fields} do
        wrk.headers["X-Field-" .. number] = "a value as long as many are, number " .. number
    end
    local one = wrk.format(nil)
    all = string.rep(one, {pipeline})
end
function request()
    return all
end
"""
_TICK = os.sysconf("SC_CLK_TCK")
_HANDSHAKES = 100
_START = 60.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def gateway(workers: int) -> Iterator[tuple[int, int, list[int]]]:
    """Its ports for plain HTTP and for TLS, and the processes that serve."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, tls = free_port(), free_port()
        path = folder / "koder-gateway.toml"
        path.write_text(CONFIG.format(plain=plain, tls=tls, workers=workers))
        words = [str(Path(sys.executable).parent / "koder-gateway"), "run", "--config", str(path)]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(words, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + _START
            while log.read_text().count(" serves on ") < workers:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the gateway does not start:\n{log.read_text()}")
                time.sleep(0.1)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield plain, tls, [int(pid) for pid in children] or [process.pid]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def saturate(port: int, pids: Sequence[int], options: argparse.Namespace) -> tuple[float, float, list[float]]:
    """Requests a second, microseconds of processor time for each, and each worker's part of that time."""
    before = [processor_time(pid) for pid in pids]
    words = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-H", "Host: acme.id.localhost"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.format(fields=options.fields, pipeline=options.pipeline))
        script.flush()
        words += ["-s", script.name, f"http://127.0.0.1:{port}/nowhere"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    found = re.search(r"([0-9]+) requests in ([0-9.]+)s", done.stdout)
    if found is None:
        raise SystemExit(done.stdout)
    used = [processor_time(pid) - start for pid, start in zip(pids, before, strict=True)]
    count = int(found[1])
    return count / float(found[2]), sum(used) / count * 1e6, [part / sum(used) for part in used]


def full_handshakes(port: int) -> float:
    """The share of handshakes that were full, of those with a session."""
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    session = None
    full = 0
    for number in range(_HANDSHAKES + 1):
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            trust.wrap_socket(connection, server_hostname="acme.id.localhost", session=session) as secure,
        ):
            secure.sendall(b"GET /nowhere HTTP/1.1\r\nHost: acme.id.localhost\r\nConnection: close\r\n\r\n")
            while secure.recv(65536):
                pass
            full += bool(number) and not secure.session_reused
            session = session or secure.session
    return full / _HANDSHAKES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2", help="how many, one after the other")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pipeline", type=int, default=1, help="requests sent at once")
    parser.add_argument("--fields", type=int, default=0, help="header fields of a request besides Host")
    options = parser.parse_args()
    for workers in map(int, options.workers.split(",")):
        with gateway(workers) as (plain, tls, pids):
            rate, cost, parts = saturate(plain, pids, options)
            shown = {
                "workers": workers,
                "requests/s": round(rate),
                "us/request": round(cost, 1),
                "parts": [round(part, 2) for part in parts],
                "full": full_handshakes(tls),
            }
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
