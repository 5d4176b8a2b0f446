"""The servers under attack, each on one core: the gateway with its shipped limits, and Go's reference gateway."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from echo import write_certificate
from servers import BASE_DOMAIN, Cores, MeasurementError, Server, free_port, gateway_command

# A server that grows beyond so many bytes is killed.
MOST = 2 << 30
PROXIES = "127.0.3.0/24"
_CONFIGURATION = """\
[tenants]
base_domain = "{base_domain}"
registry = "tenants.toml"

[services]
identity = {{ url = "http://127.0.0.1:{service}", max_connections = {connections} }}
auth = "http://127.0.0.1:{bulk}"

[cors]
origins = ["https://app.example.com"]

[listen]
trusted_proxies = ["{proxies}"]

[state]
dir = "state"

[log]
access = false
"""
TENANTS = '[[tenant]]\nslug = "acme"\n'


class Target(Server):
    """A server that can be attacked on `tls_port` and `plain_port`."""

    tls_port: int
    plain_port: int

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes of memory of its own (RssAnon); 0 when it has ended."""
        return resident(self._process.pid)

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def wait_until_ready(self) -> None:
        """Return once it accepts connections on both ports."""
        deadline = time.monotonic() + 30
        for port in (self.tls_port, self.plain_port):
            while True:
                with socket.socket() as probe:
                    if not probe.connect_ex(("127.0.0.1", port)):
                        break
                if not self.alive or time.monotonic() > deadline:
                    raise MeasurementError(f"does not serve:\n{self._output.read_text(errors='replace')[-1500:]}")
                time.sleep(0.05)


def configuration(service: int, bulk: int, connections: int = 1024) -> str:
    """The gateway's, with everything that shipped limits and bounds say; `tenants.toml` stands beside it. The ports
    are those of the service of honest clients, which takes so many `connections`, and of the attackers'."""
    return _CONFIGURATION.format(
        base_domain=BASE_DOMAIN, service=service, bulk=bulk, connections=connections, proxies=PROXIES
    )


def resident(pid: int) -> int:
    """RssAnon of a process in bytes; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


class FloodedGateway(Target):
    """The gateway as its users start it, with the shipped limits and bounds. `services`: the ports of that of honest
    clients and that of attackers."""

    def __init__(self, folder: Path, cores: Cores, services: tuple[int, int]) -> None:
        folder.mkdir(parents=True)
        self.tls_port, self.plain_port = free_port(), free_port()
        (folder / "gateway.toml").write_text(configuration(*services))
        (folder / "tenants.toml").write_text(TENANTS)
        loopback = "interface=127.0.0.1"
        ports = f"ssl:{self.tls_port}:{loopback}", f"tcp:{self.plain_port}:{loopback}"
        super().__init__(folder, gateway_command("gateway.toml", *ports), cores.server)


class Reference(Target):
    """Go's reference gateway, built beforehand by `build`."""

    def __init__(self, folder: Path, cores: Cores, services: tuple[int, int], binary: Path) -> None:
        folder.mkdir(parents=True)
        self.tls_port, self.plain_port = free_port(), free_port()
        certificate, key = write_certificate(folder)
        words = ["env", "GOMAXPROCS=1", str(binary), f"127.0.0.1:{self.tls_port}", f"127.0.0.1:{self.plain_port}"]
        words += [str(certificate), str(key), *(f"http://127.0.0.1:{port}" for port in services)]
        super().__init__(folder, words, cores.server)


def build(folder: Path, go: str) -> Path:
    """Build the reference gateway; its binary."""
    folder.mkdir()
    binary, source = folder / "reference_gateway", Path(__file__).with_name("reference_gateway.go")
    environment = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOPROXY": "off"}
    # The standard library takes a minute to build: once is enough.
    environment.setdefault("GOCACHE", str(Path(__file__).resolve().parents[1] / "build/go"))
    built = subprocess.run([go, "build", "-o", str(binary), str(source)], env=environment, capture_output=True)
    if built.returncode:
        raise MeasurementError(f"{go} does not build {source.name}: {built.stderr.decode(errors='replace')}")
    return binary
