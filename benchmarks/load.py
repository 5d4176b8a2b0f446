"""The load of the scale benchmark: wrk for throughput, h2load for latency, plain sockets to fill and to idle."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from servers import BASE_DOMAIN, ORIGIN, Cores, Gateway, MeasurementError

CONNECTIONS = 64
# At a fixed rate, over this many connections.
RATE = 2000
_PACED = 32
# On a machine that is busy with something else, not one answer may come within the seconds of a measurement. It is
# then repeated with more of them, while there were fewer than this.
LONGEST = 30
# Nor does a request fail that takes wrk's two seconds.
PATIENCE = "--timeout=60s"
# Requests on their way at once while limit entries are filled.
_BATCH = 500
HEADERS = {
    "Origin": ORIGIN,
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "application/json",
    "Accept-Language": "en-GB,en;q=0.9",
    "Authorization": "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "c2lnbmF0dXJl" * 12,
}
_FIELDS = [word for name, value in HEADERS.items() for word in ("-H", f"{name}: {value}")]
# Every request is made beforehand and picked at random, so that choosing costs the load next to nothing.
_PICK = """\
local requests, count = {}, 0
function init(arguments)
  for line in io.lines(arguments[1]) do
    local host, path = line:match("^(%S+) (%S+)$")
    wrk.headers["Host"] = host
    count = count + 1
    requests[count] = wrk.format("GET", path)
  end
  math.randomseed(1)
end
function request() return requests[math.random(count)] end
"""

Sample = dict[str, float]


def write_requests(folder: Path, requests: list[tuple[str, str]]) -> Path:
    """A file of hosts and paths for `saturate`, and the script that reads it beside it."""
    (folder / "pick.lua").write_text(_PICK)
    listed = folder / "requests"
    listed.write_text("".join(f"{host} {path}\n" for host, path in requests))
    return listed


def saturate(gateway: Gateway, cores: Cores, requests: Path, seconds: int) -> Sample:
    """As many requests as the gateway takes, over TLS connections that are kept alive.

    `rps` is their number a second, `cpu_us` the gateway's own processor time for each, `busy` the share of its core
    that it used: well below 1, the figure tells of the load generator.
    """
    script = str(requests.with_name("pick.lua"))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", PATIENCE, *_FIELDS, "-s", script]
    before = gateway.cpu_seconds
    output = _run(cores, [*command, f"https://127.0.0.1:{gateway.tls_port}", "--", str(requests)])
    used = gateway.cpu_seconds - before
    done = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", output)
    if done is not None and not int(done[1]) and "Socket errors" not in output and seconds < LONGEST:
        return saturate(gateway, cores, requests, 4 * seconds)
    if done is None or not int(done[1]) or "Non-2xx" in output or "Socket errors" in output:
        raise MeasurementError(f"not every request was served:\n{output}")
    took = float(done[2]) * {"ms": 0.001, "s": 1, "m": 60}[done[3]]
    return {"rps": int(done[1]) / took, "cpu_us": used / int(done[1]) * 1e6, "busy": used / took}


def pace(gateway: Gateway, cores: Cores, folder: Path, seconds: int) -> Sample:
    """The latency in ms, `p50` and `p99`, of `RATE` requests a second over TLS connections that are kept alive."""
    log = folder / "latency"
    log.unlink(missing_ok=True)
    total = RATE * seconds
    command = ["h2load", "--h1", f"-c{_PACED}", "-t1", f"--rps={RATE / _PACED}", f"-n{total}", f"--log-file={log}"]
    address = f"127.0.0.1:{gateway.tls_port}"
    url = f"https://acme.{BASE_DOMAIN}:{gateway.tls_port}/v1/users"
    before = gateway.cpu_seconds
    output = _run(cores, [*command, *_FIELDS, f"--connect-to={address}", url])
    used = gateway.cpu_seconds - before
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(row[2]) / 1000 for row in rows if len(row) == 3 and row[1] == "200")
    if len(times) != total:
        raise MeasurementError(f"{len(times)} of {total} requests were served:\n{output}")
    return {"p50": times[total // 2], "p99": times[total * 99 // 100], "cpu_us": used / total * 1e6}


def _run(cores: Cores, command: list[str]) -> str:
    ended = subprocess.run(["taskset", "-c", cores.load, *command], capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise MeasurementError(f"{command[0]} failed:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def fill(gateway: Gateway, hosts: Iterable[str]) -> None:
    """One request from each host, pipelined. Their path has no route, which is found out after they are charged."""
    left = iter(hosts)
    with socket.create_connection(("127.0.0.1", gateway.plain_port), 30) as client:
        while batch := list(islice(left, _BATCH)):
            client.sendall(b"".join(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode() for host in batch))
            answered, rest = 0, b""
            while answered < len(batch):
                data = client.recv(1 << 18)
                if not data:
                    raise MeasurementError("the gateway closed the connection that fills its limits")
                whole = rest + data
                answered += whole.count(b"HTTP/1.1 404 ")
                # What may be the beginning of a status line, and has not been counted.
                rest = whole[-12:]


def idle_connections(gateway: Gateway, count: int) -> list[ssl.SSLSocket]:
    """TLS connections that have had one request each, and nothing since."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = f"acme.{BASE_DOMAIN}"
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"GET /v1/users HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
    opened = []
    for _ in range(count):
        raw = socket.create_connection(("127.0.0.1", gateway.tls_port), 30)
        client = context.wrap_socket(raw, server_hostname=host)
        client.sendall(request)
        if not client.recv(65536).startswith(b"HTTP/1.1 200 "):
            raise MeasurementError("an idle connection's one request was not served")
        opened.append(client)
    return opened
