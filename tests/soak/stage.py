"""Everything real that a soak needs: a gateway, its services, a Redis, and the files that change meanwhile."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from koder_gateway.ops.control_socket import Refused, ask_reload
from tests.kit.authority import Authority
from tests.kit.gateways import GatewayProcess, configuration, kill_quietly
from tests.kit.http1 import Ended, Message
from tests.kit.ports import free_ports
from tests.kit.redis import Redis
from tests.soak.honest import GUEST, Doors
from tests.soak.ledger import Ledger
from tests.soak.leftovers import PROBE
from tests.soak.patience import until
from tests.soak.wire import Ask, new_token

ROOT = Path(__file__).parents[2]
STEADY = ("acme", "beta", "gamma", "delta")
# The first one dies and hangs; the others never do.
SERVICES = ("a", "b", "c")
_LIMITS = """
[[limits]]
name = "traffic"
key = ["tenant", "ip"]
rate = "2000/s"
burst = 2000
[[limits]]
name = "in-flight"
key = ["tenant"]
in_flight = 100000
[[limits]]
name = "refusals"
key = ["ip"]
rate = "1000/s"
burst = 1000
charge = "refusals"
"""
# Connections that must be served in a row before a fault counts as over: with several workers each serves some.
_IN_A_ROW = 8
# Looks at the metrics, a tenth of a second apart, in which those of every worker have been taken anew.
_LOOKS = 15


class ServiceProcess:
    """A service on a port of its own, which may be killed and started again."""

    def __init__(self, folder: Path, name: str) -> None:
        self.faults = folder / f"{name}.faults"
        self.faults.write_text("")
        self._log = folder / f"{name}.log"
        (self.port,) = free_ports(1)
        self.start()

    def start(self) -> None:
        """Start it, and return once it serves."""
        words = [sys.executable, "-m", "tests.soak.service", str(self.port), str(self.faults)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)
        until(lambda: self._log.read_bytes().startswith(b"serves") or self.process.poll(), "a service serves")
        assert self.process.poll() is None, self._log.read_text()

    def kill(self) -> None:
        """End it at once."""
        kill_quietly(self.process)

    def hang(self) -> None:
        """Let it do nothing, until it goes on."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a hang."""
        os.kill(self.process.pid, signal.SIGCONT)


class Stage:
    """A gateway with so many workers (1: a single process) and what is around it. A context manager."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.probe = folder / "probe"
        self.probe.mkdir(parents=True)
        self.workers = workers
        self.ledger = Ledger()
        self._stack = ExitStack()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        folder, stack = self.folder, self._stack
        self.authority = Authority(folder / "authority")
        self.rotate()
        self.tenants()
        self.redis = stack.enter_context(Redis(folder / "redis"))
        self.services = {}
        for name in SERVICES:
            self.services[name] = ServiceProcess(folder, name)
            stack.callback(self.services[name].kill)
        environ = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROBE), str(ROOT), os.environ.get("PYTHONPATH")])),
            "SOAK_PROBE": str(self.probe),
        }
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        self.gateway = stack.enter_context(GatewayProcess(folder, self.configuration(), ports=ports, environ=environ))
        until(self.settled, "all workers serve, and share their limits")

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def configuration(self, most: int = 1024) -> str:
        """The configuration, with so many connections to the service c."""
        sections: dict[str, dict[str, object]] = {
            "tenants": {"registry": "tenants.toml", "max_loss": "100%"},
            "listen": {"workers": self.workers},
            "limits_store": {"url": f"unix:{self.redis.path}", "timeout": "500ms"},
            # A machine that is busy with the clients as well may take its time for a handshake.
            "timeouts": {"head": "30s", "idle": "20s", "upstream_keepalive": "2s"},
        }
        urls = {name: f"http://127.0.0.1:{service.port}" for name, service in self.services.items() if name != "c"}
        text = configuration(urls, sections, _LIMITS)
        more = f'[services.c]\nurl = "http://127.0.0.1:{self.services["c"].port}"\nmax_connections = {most}\n'
        return f'{text}\n{more}[[routes]]\npath = "/c"\nservice = "c"\n'

    def configure(self, text: str) -> Refused | None:
        """Put this configuration in place, and reload; the refusal, if there is one."""
        _replace(self.gateway.config, text.encode())
        return self.reload()

    def reload(self) -> Refused | None:
        """Have the gateway read everything again; the refusal, if there is one."""
        return ask_reload(self.gateway.pid)

    def rotate(self) -> None:
        """Put a new certificate in place."""
        made = self.authority.issue("id.test", "*.id.test", label="server")
        (self.folder / "certs").mkdir(exist_ok=True)
        _replace(self.folder / "certs" / "default.pem", made.both.read_bytes())

    def tenants(self, *others: str, guest: str = "active") -> None:
        """Write the registry: the steady tenants, these others, and the guest."""
        entries = [f'[[tenant]]\nslug = "{slug}"\n' for slug in (*STEADY, *others)]
        entries.append(f'[[tenant]]\nslug = "{GUEST}"\nstatus = "{guest}"\n')
        _replace(self.folder / "tenants.toml", "".join(entries).encode())

    def doors(self, think: float) -> Doors:
        """Where the load connects."""
        contexts = []
        for protocol in ("http/1.1", "h2"):
            trust = ssl.create_default_context(cafile=str(self.authority.path))
            trust.set_alpn_protocols([protocol])
            contexts.append(trust)
        return Doors(*self.gateway.ports, *contexts, self.ledger, SERVICES, STEADY, think)

    def ask(self, service: str, tenant: str = STEADY[0]) -> tuple[Ask, Message]:
        """One request on a connection of its own."""
        ask = Ask(new_token(), tenant, service, 100)
        with self.gateway.connect() as client:
            client.send(ask.encoded())
            return ask, client.read()

    def serves(self, service: str) -> bool:
        """Whether so many requests in a row are answered properly."""
        for _ in range(_IN_A_ROW):
            try:
                ask, answer = self.ask(service)
            except (Ended, OSError):
                return False
            if not answer.complete or ask.fault(answer.status, answer.values, answer.body):
                return False
        return True

    def available(self, service: str) -> Callable[[], bool]:
        """Whether every worker uses the service, once that has been so for some looks in a row: what a worker shows
        of the others is up to a second old."""
        name = re.compile(rf'koder_gateway_upstream_available\{{.*service="{service}".*\}}')
        looks = 0

        def look() -> bool:
            nonlocal looks
            good = all(value for each, value in self.gateway.metrics().items() if name.fullmatch(each))
            looks = looks + 1 if good else 0
            return (self.workers == 1 or looks >= _LOOKS) and self.serves(service)

        return look

    def settled(self) -> bool:
        """Whether every worker serves and limits are shared."""
        metrics = self.gateway.metrics()
        ready = self.workers == 1 or metrics.get("koder_gateway_workers_ready") == self.workers
        return ready and metrics.get("koder_gateway_limits_store_up") == 1


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(data)
    draft.replace(path)
