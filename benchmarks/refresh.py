"""Measures what requests wait for while a registry of a million tenants is read again.

    python benchmarks/refresh.py [--tenants 1000000] [--rate 250] [--quiet 20] [--cases file,pages,page]

One client sends a request every few milliseconds, for another tenant each time, and waits for its response. First
nothing else happens (`quiet`), then the registry changes and is read again: a file (`file`), all pages of a list
behind a URL (`pages`), or one of them (`page`). Needs nginx, and two processors of its own: what others do there is
measured too. Ends with 1 if the p99 of a refresh is more than 10 ms over the quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from servers import BASE_DOMAIN, Cores, Gateway, MeasurementError, Server, find, free_port, start_upstream

_BOUND: Final = 10.0
_PAGE: Final = 20_000
_PATIENCE: Final = 600.0
_NGINX: Final = """\
user root;
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off; default_type application/json; etag on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}/pages; }}
}}
"""


class Client:
    """Sends requests one after the other on one connection."""

    def __init__(self, port: int, tenants: int, rate: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tenants = tenants
        self._step = 1 / rate
        self._random = random.Random(3)

    def sample(self, until: Callable[[], bool]) -> list[float]:
        """Milliseconds of each request until the condition holds."""
        waits = []
        while not until():
            time.sleep(self._step)
            host = f"t{self._random.randrange(self._tenants)}.{BASE_DOMAIN}"
            begun = time.perf_counter()
            self._socket.sendall(f"GET /v1/users/7 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                data = self._socket.recv(65536)
                if not data:
                    raise MeasurementError(f"the connection ended after {answer!r}")
                answer += data
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise MeasurementError(f"{host}: {answer[:200]!r}")
            waits.append((time.perf_counter() - begun) * 1000)
        return waits


def quantile(waits: list[float], part: float) -> float:
    """The value below which this part of them lies."""
    return sorted(waits)[min(len(waits) - 1, int(part * len(waits)))]


class Reads:
    """How often a gateway says that it has read its registry again."""

    def __init__(self, gateway: Gateway) -> None:
        self._output = gateway.folder / "output"
        self._at = 0
        self._looked = 0.0
        self.count = 0

    def more_than(self, count: int) -> Callable[[], bool]:
        """Whether it has by now; looks four times a second."""
        ends = time.monotonic() + _PATIENCE

        def done() -> bool:
            now = time.monotonic()
            if now > ends:
                raise MeasurementError("the registry was not read again")
            if now - self._looked > 0.25:
                self._looked = now
                with self._output.open("rb") as file:
                    file.seek(self._at)
                    new = file.read()
                self._at += len(new)
                self.count += new.count(b"registry read again")
            return self.count > count

        return done


def write_file(path: Path, tenants: int, mark: int) -> None:
    """A tenants file, each tenant with a domain; `mark` is what has changed."""
    fresh = path.with_suffix(".new")
    with fresh.open("w") as file:
        for number in range(tenants):
            file.write(f'[[tenant]]\nslug = "t{number}"\ndomains = ["login{mark}.t{number}.example"]\n')
    fresh.replace(path)


def write_pages(folder: Path, tenants: int, mark: int, *, first_only: bool = False) -> None:
    """The same as a list in pages."""
    starts = range(0, tenants, _PAGE)
    for page, start in enumerate(starts):
        listed = [
            {"slug": f"t{number}", "domains": [f"login{mark}.t{number}.example"]}
            for number in range(start, min(start + _PAGE, tenants))
        ]
        following = f"/p{page + 1}.json" if start + _PAGE < tenants else None
        fresh = folder / "new"
        fresh.write_text(json.dumps({"next": following, "tenants": listed}))
        fresh.replace(folder / f"p{page}.json")
        if first_only:
            return


def start_pages(folder: Path, cores: Cores) -> tuple[Server, str]:
    """nginx with the pages of a list, and the URL of the first one."""
    (folder / "pages").mkdir(parents=True)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port))
    command = [find("nginx") or "nginx", "-e", str(folder / "nginx.log"), "-c", str(configuration)]
    return Server(folder, command, cores.load), f"http://127.0.0.1:{port}/p0.json"


def measure(options: argparse.Namespace, folder: Path, stack: ExitStack) -> bool:
    """Measure and print every case; whether all are within the bound."""
    cores = Cores()
    os.sched_setaffinity(0, map(int, cores.load.split(",")))
    upstream, port = start_upstream(folder / "upstream", cores)
    stack.enter_context(upstream)
    kept = True
    for name in options.cases:
        registry = str(folder / "tenants.toml")
        if name == "file":
            write_file(Path(registry), options.tenants, 0)
        else:
            pages, registry = start_pages(folder / f"{name}-list", cores)
            stack.enter_context(pages)
            write_pages(folder / f"{name}-list" / "pages", options.tenants, 0)
        settings = {"routes": ("/v1/users",), "registry": registry + '"\nrefresh = "1s'}
        with Gateway(folder / name, cores, port, **settings) as gateway:
            gateway.wait_until_ready()
            reads = Reads(gateway)
            if name != "file":
                while not reads.more_than(0)():
                    time.sleep(0.3)
            client = Client(gateway.plain_port, options.tenants, options.rate)
            client.sample(after(5))
            quiet = client.sample(after(options.quiet))
            before, begun = reads.count, time.monotonic()
            if name == "file":
                write_file(Path(registry), options.tenants, 1)
            else:
                write_pages(folder / f"{name}-list" / "pages", options.tenants, 1, first_only=name == "page")
            during = client.sample(reads.more_than(before))
            seconds = time.monotonic() - begun
            later = client.sample(after(options.quiet))
            for what, waits in (("quiet", quiet), (f"{name}, {seconds:.0f} s", during), ("afterwards", later)):
                figures = "".join(f"{label} {quantile(waits, part):8.2f}  " for label, part in _SHOWN)
                print(f"{what:20} {len(waits):>7,} requests, ms: {figures}max {max(waits):8.2f}", flush=True)
            kept = kept and quantile(during, 0.99) <= quantile(quiet, 0.99) + _BOUND
    return kept


_SHOWN: Final = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=250, help="requests a second at most; default: %(default)s")
    parser.add_argument("--quiet", type=float, default=20, help="seconds without a refresh; default: %(default)s")
    parser.add_argument("--cases", default="file,pages,page", help="default: %(default)s")
    options = parser.parse_args()
    options.cases = options.cases.split(",")
    if shutil.which("taskset") is None or find("nginx") is None:
        print("missing; on Debian: apt-get install nginx util-linux", file=sys.stderr)
        return 2
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="koder-gateway-refresh-")))
            return 0 if measure(options, folder, stack) else 1
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
