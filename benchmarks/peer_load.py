"""The load of the comparison with peers: wrk and h2load where they are installed, else the project's own.

TLS is the same for all servers because the load allows nothing else: TLS 1.3, AES-128-GCM and X25519, told to OpenSSL
by a configuration of its own. Nobody resumes a session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from echo import HOST
from flood_servers import Target
from load import CONNECTIONS, HEADERS, LONGEST, PATIENCE, RATE, Sample, pace
from servers import Cores, MeasurementError

_OPENSSL: Final = """\
openssl_conf = whole
[whole]
ssl_conf = tls
[tls]
system_default = settings
[settings]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
"""
# So many of a hundred answers have the status that a case is about. Limits let one pass now and then.
_MOST: Final = 0.99
# HTTP/2 connections, and streams at once on each.
H2_CONNECTIONS: Final = 8
H2_STREAMS: Final = 10
_PACED: Final = 32


@dataclass(frozen=True)
class Ask:
    """The request of a case. `body` is its length in bytes; `connections` ask at once, and with `close` each has one
    request; every answer has to be 2xx, or 429 where it is `refused`."""

    path: str
    method: str = "GET"
    body: int = 0
    fields: tuple[tuple[str, str], ...] = ()
    secure: bool = True
    close: bool = False
    refused: bool = False
    connections: int = CONNECTIONS

    def headers(self) -> dict[str, str]:
        """Its fields, Host apart."""
        named = {**HEADERS, **dict(self.fields)}
        return {**named, "Connection": "close"} if self.close else named

    def raw(self) -> bytes:
        """The whole request over HTTP/1.1."""
        fields = {"Host": HOST, **self.headers(), **({"Content-Length": str(self.body)} if self.body else {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + b"x" * self.body


def settle_tls(folder: Path) -> None:
    """Let every load that is started from now on speak the one kind of TLS."""
    (folder / "openssl.cnf").write_text(_OPENSSL)
    os.environ["OPENSSL_CONF"] = str(folder / "openssl.cnf")


def saturate(server: Target, cores: Cores, ask: Ask, seconds: int) -> Sample:
    """As many requests as the server takes. `rate` is their number a second, `cpu_us` its processor time for each,
    `busy` the share of its core that it used: well below 1, `rate` tells of the load."""
    load = _by_wrk if shutil.which("wrk") else _by_own
    before = server.cpu_seconds
    served, others, took = load(server, cores, ask, seconds)
    used = server.cpu_seconds - before
    if not served + others and seconds < LONGEST:
        return saturate(server, cores, ask, 4 * seconds)
    if not served or served < _MOST * (served + others):
        raise MeasurementError(f"{served} of {served + others} answers were {'429' if ask.refused else '2xx'}")
    return {"rate": served / took, "cpu_us": used / served * 1e6, "busy": used / took}


def _script(ask: Ask) -> str:
    fields = "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n" for name, value in ask.headers().items()
    )
    body = f'wrk.body = string.rep("x", {ask.body})\n' if ask.body else ""
    return f'wrk.method = "{ask.method}"\nwrk.headers["Host"] = "{HOST}"\n{fields}{body}'


def _by_wrk(server: Target, cores: Cores, ask: Ask, seconds: int) -> tuple[int, int, float]:
    """How many answers were as they should be, how many were not, in so many seconds."""
    script = server.folder / "load.lua"
    script.write_text(_script(ask))
    port, scheme = (server.tls_port, "https") if ask.secure else (server.plain_port, "http")
    url = f"{scheme}://127.0.0.1:{port}{ask.path}"
    output = _run(cores, ["wrk", "-t1", f"-c{ask.connections}", f"-d{seconds}s", PATIENCE, "-s", str(script), url])
    done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", output)
    if done is None or "Socket errors" in output:
        raise MeasurementError(f"not every request was answered:\n{output}")
    odd = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    count, refused = int(done[1]), int(odd[1]) if odd else 0
    served = refused if ask.refused else count - refused
    return served, count - served, float(done[2]) * {"ms": 0.001, "s": 1, "m": 60}[done[3]]


def _own(server: Target, cores: Cores, ask: Ask, seconds: int, *more: str) -> dict[str, object]:
    script = str(Path(__file__).with_name("peer_clients.py"))
    words = [sys.executable, script, str(server.tls_port if ask.secure else server.plain_port)]
    words += [str(ask.connections), str(seconds), *(["--tls", HOST] if ask.secure else [])]
    words += ["--close"] if ask.close else []
    result: dict[str, object] = json.loads(_run(cores, [*words, *more], ask.raw()))
    return result


def _by_own(server: Target, cores: Cores, ask: Ask, seconds: int) -> tuple[int, int, float]:
    result = _own(server, cores, ask, seconds)
    statuses = {int(status): int(count) for status, count in dict(result["statuses"]).items()}
    served = sum(count for status, count in statuses.items() if (status == 429 if ask.refused else status < 300))
    return served, sum(statuses.values()) - served, float(str(result["seconds"]))


def latency(server: Target, cores: Cores, ask: Ask, seconds: int) -> Sample:
    """`p50` and `p99` in ms of `RATE` requests a second over TLS connections that are kept."""
    if shutil.which("h2load"):
        return pace(server, cores, server.folder, seconds)
    before = server.cpu_seconds
    result = _own(server, cores, Ask(ask.path, connections=_PACED), seconds, "--rate", str(RATE))
    used = server.cpu_seconds - before
    times: list[float] = sorted(result["times"])
    if dict(result["statuses"]).keys() != {"200"} or len(times) < _MOST * RATE * seconds / 2:
        raise MeasurementError(f"{len(times)} requests were served, of {RATE * seconds}: {result['statuses']}")
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "cpu_us": used / len(times) * 1e6}


def streams(server: Target, cores: Cores, ask: Ask, seconds: int) -> Sample:
    """Requests over HTTP/2, as `saturate` has them. h2load alone speaks it."""
    url = f"https://{HOST}:{server.tls_port}{ask.path}"
    command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", f"-D{seconds}", "--npn-list=h2"]
    command += [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
    before = server.cpu_seconds
    output = _run(cores, [*command, f"--connect-to=127.0.0.1:{server.tls_port}", url])
    used = server.cpu_seconds - before
    done = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    if done is not None and not any(map(int, done.groups())) and seconds < LONGEST:
        return streams(server, cores, ask, 4 * seconds)
    if done is None or not int(done[1]) or any(map(int, done.groups()[1:])):
        raise MeasurementError(f"not every request was served:\n{output}")
    served = int(done[1])
    return {"rate": served / seconds, "cpu_us": used / served * 1e6, "busy": used / seconds}


def _run(cores: Cores, command: list[str], data: bytes = b"") -> str:
    ended = subprocess.run(["taskset", "-c", cores.load, *command], input=data, capture_output=True, timeout=180)
    output = ended.stdout.decode()
    if ended.returncode:
        raise MeasurementError(f"{command[0]} failed:\n{output}{ended.stderr.decode(errors='replace')}")
    return output
