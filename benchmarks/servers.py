"""The servers of the benchmarks: gateways on one core, nginx as the service behind them on the others."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

BASE_DOMAIN = "id.localhost"
ORIGIN = "https://app.example.com"
# A million tenants take the better part of a minute to read.
_START = 240.0
_STOP = 15.0
_TICK = os.sysconf("SC_CLK_TCK")
# As root its worker is root too, since the folder is its owner's alone; for others the first line means nothing.
_NGINX = """\
user root;
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{{"id":"01HZX","email":"a@example.com","name":"Ada","tenant":"$http_x_tenant_id"}}'; }}
    location = {large} {{ alias {folder}/large; }}
  }}
}}
"""
# A path with a large answer, of so many bytes.
LARGE_PATH = "/v1/users/large"
LARGE = 4 << 20
# Sections for a load that no bound may touch. All of it comes from one address and for one tenant.
UNBOUNDED = """\
[timeouts]
keepalive = "1h"

[state]
dir = "state"

[listen]
max_connections = 15000

[shares]
address = "100%"
tenant = "100%"

[log]
access = false
"""
_CONFIGURATION = """\
[tenants]
base_domain = "{base_domain}"
registry = "{registry}"

[services]
identity = "http://127.0.0.1:{upstream}"

[cors]
origins = ["{origin}"]

[limits_store]
url = "{store}"
max_entries = 2_000_000

{unbounded}
[[limits]]
name = "wide"
key = ["tenant", "ip"]
rate = "{rate}"
burst = 10_000_000

"""


class MeasurementError(Exception):
    """Something is missing or answers wrongly: there is no figure."""


class Cores:
    """One processor for the server under test, the others for the load and the service behind.

    Where nothing is measured (`measuring` is False) one processor may be both.
    """

    def __init__(self, measuring: bool = True) -> None:
        available = sorted(os.sched_getaffinity(0))
        if not measuring:
            available *= 2
        if len(available) < 2:
            raise MeasurementError("two processors are needed: one for the gateway, one for the load")
        self.server = str(available[0])
        self.load = ",".join(map(str, available[1:]))


def allow_descriptors(count: int, least: int = 0) -> None:
    """Raise the limit of open files, for this process and those that it starts.

    Where so many are not allowed as many as are; MeasurementError when these are fewer than `least`, by default all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    try:
        ceiling = hard if hard == resource.RLIM_INFINITY else max(hard, count)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, ceiling))
    except (ValueError, OSError):
        if hard < (least or count):
            raise MeasurementError(
                f"{least or count} open files are needed, {hard} are allowed; see ulimit -n"
            ) from None
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find(name: str) -> str | None:
    """A program of the environment that this Python belongs to, else the system's, daemons included."""
    own = Path(sys.prefix) / "bin" / name
    # An ordinary user's PATH does not lead where Debian's daemons are.
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    return str(own) if own.exists() else shutil.which(name, path=places)


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processor_seconds(process: Path) -> float:
    """Seconds of processor time that the process with this folder in /proc has used so far."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


class Server:
    """A child process with a group of its own, on some cores; ended when its context is left.

    `folder`, which exists, is its own: it runs there, and what it says is kept there.
    """

    def __init__(self, folder: Path, command: list[str], cores: str) -> None:
        self.folder = folder
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", cores, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait_for(self, url: str, host: str = "") -> None:
        """Return once `url` answers 200, asked by its own host or this one.

        MeasurementError when the process ends or takes too long.
        """
        deadline = time.monotonic() + _START
        request = urllib.request.Request(url, headers={"Host": host} if host else {})
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        tail = self._output.read_text(errors="replace")[-1500:]
        raise MeasurementError(f"{self._process.args!r} does not serve {url}:\n{tail}")

    @property
    def cpu_seconds(self) -> float:
        """What the process has used so far, in user mode and in the kernel."""
        return processor_seconds(Path(f"/proc/{self._process.pid}"))


def start_upstream(folder: Path, cores: Cores) -> tuple[Server, int]:
    """nginx with a small JSON answer on every path but `LARGE_PATH`, and its port."""
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "large").write_bytes(bytes(LARGE))
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, large=LARGE_PATH))
    server = Server(
        folder, [find("nginx") or "nginx", "-e", str(folder / "nginx.log"), "-c", str(configuration)], cores.load
    )
    server.wait_for(f"http://127.0.0.1:{port}/")
    return server, port


def gateway_command(configuration: str, *endpoints: str) -> list[str]:
    """The gateway's command line as its users have it, from the environment that this Python belongs to."""
    command = [str(Path(sys.prefix) / "bin/twistd"), "-n", "--pidfile=", "koder-gateway", "--config", configuration]
    return [*command, *(word for endpoint in endpoints for word in ("--port", endpoint))]


class Gateway(Server):
    """A gateway as its users start it, from the environment that this Python belongs to.

    `routes` are paths, all to the one service; `registry` is a tenants file, none for an open registry. `rate` is
    that of the one limit, which refuses nobody: by the hour its buckets stay, by the second they are soon full again.
    `store` is where it is counted. `extra` are further sections. `tls_port` 0: any.
    """

    def __init__(
        self,
        folder: Path,
        cores: Cores,
        upstream: int,
        *,
        routes: tuple[str, ...],
        registry: str = "",
        rate: str = "1000000/s",
        store: str = "memory:",
        extra: str = "",
        tls_port: int = 0,
    ) -> None:
        folder.mkdir(parents=True)
        self.tls_port, self.plain_port, self._admin_port = tls_port or free_port(), free_port(), free_port()
        text = _CONFIGURATION.format(
            base_domain=BASE_DOMAIN,
            registry=registry,
            upstream=upstream,
            origin=ORIGIN,
            rate=rate,
            store=store,
            unbounded=UNBOUNDED,
        )
        text += extra
        text += "".join(f'[[routes]]\npath = "{path}"\nservice = "identity"\n\n' for path in routes)
        (folder / "gateway.toml").write_text(text)
        loopback = "interface=127.0.0.1"
        ports = [f"ssl:{self.tls_port}:{loopback}", f"tcp:{self.plain_port}:{loopback}"]
        admin = ["--admin-port", f"tcp:{self._admin_port}:{loopback}"]
        super().__init__(folder, [*gateway_command("gateway.toml", *ports), *admin], cores.server)

    def reload(self) -> None:
        """Let it read its files again."""
        self._process.send_signal(signal.SIGHUP)

    def move_children(self, cores: str) -> None:
        """Let its child processes run on these processors."""
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            os.sched_setaffinity(int(child), map(int, cores.split(",")))

    def wait_until_ready(self) -> None:
        """Return once it serves."""
        self.wait_for(f"http://127.0.0.1:{self._admin_port}/readyz")

    def gauge(self, name: str) -> int:
        """One figure of the metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin_port}/metrics", timeout=30) as answer:
            page = answer.read().decode()
        found = re.search(rf"^koder_gateway_{name} (\S+)$", page, re.MULTILINE)
        if found is None:
            raise MeasurementError(f"the metrics page has no {name}")
        return int(float(found[1]))
