"""Gateways as processes of their own: started on ports that the kernel chooses, watched, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.kit.authority import write_certificate
from tests.kit.clients import BASE_DOMAIN, Client
from tests.kit.services import Origin, Peer
from tests.kit.tls_sockets import shared
from tests.kit.waiting import PATIENCE, until

# The descriptor that systemd hands over first is 3, and the environment names the process that it is for.
_HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='https');"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
_STARTED = re.compile(r" starting on ([0-9]+)")


# The most that the kernel keeps of what one process has sent and another one has not read, at the end that sends and
# at the one that receives (tcp(7)), in bytes: they differ by machine. A buffer that a socket sets itself is apart.
KERNEL_SENDS, KERNEL_RECEIVES = (
    int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem")
)


def tool(name: str) -> str:
    """A command of the environment that the tests run in."""
    return str(Path(sys.executable).parent / name)


def configuration(
    services: Mapping[str, str], sections: Mapping[str, Mapping[str, object]] | None = None, extra: str = ""
) -> str:
    """TOML with each service at `/NAME`, no limits but those in `extra`, logs and state beside the file."""
    document: dict[str, dict[str, object]] = {
        "tenants": {"base_domain": BASE_DOMAIN},
        "services": dict(services),
        "log": {"file": "access.log"},
        "state": {"dir": "state"},
        "tls": {"certificates": "certs"},
    }
    for name, section in (sections or {}).items():
        document.setdefault(name, {}).update(section)
    lines = [] if "[[limits]]" in extra else ["limits = []"]
    for name, section in document.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
    for name in services:
        lines += ["[[routes]]", f'path = "/{name}"', f'service = "{name}"']
    return "\n".join([*lines, extra, ""])


class GatewayProcess:
    """A gateway in a process of its own, configured in `folder`, where its logs are as well.

    `ports` are endpoint strings, as are `redirects`; with `admin` there is an admin port. `reactor` as for twistd,
    "" for the default one. `open_files` is its RLIMIT_NOFILE; `inherited` is a listening socket that it gets as
    systemd hands them over (sd_listen_fds(3)), called "https". With `program` the gateway is that Python code: it
    gets the configuration's path and `ports`, and opens one port more, which is then `admin`. `environ` are variables
    beside those of this process. A context manager: left, the process has ended and its log shows no traceback.
    """

    PLAIN = "tcp:0:interface=127.0.0.1"
    TLS = "ssl:0:interface=127.0.0.1"

    def __init__(
        self,
        folder: Path,
        config: str,
        *,
        ports: tuple[str, ...] = (PLAIN,),
        redirects: tuple[str, ...] = (),
        admin: bool = True,
        reactor: str = "",
        open_files: int = 0,
        command: str = "twistd",
        inherited: socket.socket | None = None,
        program: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "koder-gateway.toml"
        self.config.write_text(config)
        self.certificate = folder / "certs" / "default.pem"
        if not self.certificate.exists():
            write_certificate(folder / "certs", BASE_DOMAIN, f"*.{BASE_DOMAIN}")
        words = [tool(command)]
        words += ["--nodaemon", "--pidfile="] if command == "twistd" else []
        words += [f"--reactor={reactor}"] if reactor else []
        words += ["koder-gateway", "--config", str(self.config)]
        words += [word for port in ports for word in ("--port", port)]
        words += [word for port in redirects for word in ("--redirect-port", port)]
        words += ["--admin-port", self.PLAIN] if admin else []
        if program:
            words = [sys.executable, "-c", program, str(self.config), *ports]
        if open_files:
            words = ["/bin/sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *words]
        kept = () if inherited is None else (inherited.fileno(),)
        if inherited is not None:
            words = [sys.executable, "-c", _HAND_OVER, str(inherited.fileno()), *words]
        listening = sum("unix" not in port.lower() for port in (*ports, *redirects))
        rest = int(admin or bool(program))
        self._log = folder / "gateway.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=kept,
                env={**os.environ, **(environ or {})},
            )
        try:
            until(lambda: self._serves() and len(self._started()) >= listening + rest, "the gateway serves")
        except BaseException:
            self.kill()
            print(self.log())
            raise
        started = self._started()
        assert len(started) == listening + rest, self.log()
        self.ports = started[:listening]
        self.admin = started[listening] if rest else 0

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log()
        log = self.log()
        return " serves on " in log or '"where": ' in log

    def _started(self) -> list[int]:
        """The ports in the order in which they were given but for UNIX ones, the admin port last; twist's log says
        each twice."""
        return list(dict.fromkeys(map(int, _STARTED.findall(self.log()))))

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if self.process.poll() is None and kind is None:
                assert self.stop() == 0, self.log()
        finally:
            self.kill()
        if kind is None:
            self.assert_sound()

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """Its worker processes, in the order of their start (proc(5))."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def log(self) -> str:
        """What the process has written so far."""
        return self._log.read_text(errors="replace")

    def assert_sound(self) -> None:
        """Nothing in the log says that the gateway itself failed."""
        log = self.log()
        assert "Traceback" not in log, log
        assert "#critical" not in log, log

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """End in order; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End at once; nothing for a process that has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # What operators look at

    def ask_admin(self, path: str) -> tuple[int, str]:
        """Status and body of an admin page."""
        with Client(socket.create_connection(("127.0.0.1", self.admin), PATIENCE)) as client:
            client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
            answer = client.read()
        return answer.status, answer.body.decode()

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics page, by name and labels as written there."""
        return parse_metrics(self.ask_admin("/metrics")[1])

    def access(self) -> list[dict[str, Any]]:
        """The lines of the access log that are written so far."""
        path = self.folder / "access.log"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def memory(self, what: str) -> int:
        """Bytes of a line of /proc/PID/status, such as VmRSS, or VmHWM since `forget_peak`."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+([0-9]+) kB$", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Let VmHWM begin anew at the present VmRSS (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    # Clients

    def connect(
        self,
        door: int | None = None,
        *,
        tls: bool = False,
        receive_buffer: int = 0,
        send_buffer: int = 0,
        source: str = "",
    ) -> Client:
        """A client on the port of that number (those that redirect last), by default the first, over TLS the last;
        from the address `source`, which must be one of loopback."""
        return Client.connect(
            self.ports[(-1 if tls else 0) if door is None else door],
            secure=tls,
            context=self.trust() if tls else None,
            receive_buffer=receive_buffer,
            send_buffer=send_buffer,
            source=source,
        )

    def trust(self) -> ssl.SSLContext:
        """What a client needs to trust this gateway."""
        return shared(ssl.create_default_context(cafile=str(self.certificate)))


def parse_metrics(page: str) -> dict[str, float]:
    """Every sample of a page in Prometheus' text format, by name and labels."""
    samples = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


class Service:
    """A service that a test plays, and the gateway before it, which serves it at `path`."""

    def __init__(self, gateway: GatewayProcess, name: str, origin: Origin) -> None:
        self.gateway = gateway
        self.name = name
        self.path = f"/{name}"
        self.origin = origin

    def connect(self, **options: Any) -> Client:
        """A client of the gateway, as `GatewayProcess.connect` makes it."""
        return self.gateway.connect(**options)

    def connections(self, state: str) -> int:
        """The gateway's "idle" or "active" connections to this service."""
        name = f'koder_gateway_upstream_connections{{service="{self.name}",state="{state}"}}'
        return int(self.gateway.metrics()[name])


class Services:
    """One gateway for many tests, with a service for each that none has used before.

    Its ports are a plain one and one for TLS. A context manager, as the gateway's process is.
    """

    def __init__(
        self, folder: Path, count: int, sections: Mapping[str, Mapping[str, object]], *, reactor: str = ""
    ) -> None:
        self._spare = {f"s{number}": Origin(listening=False) for number in range(count)}
        config = configuration({name: origin.url for name, origin in self._spare.items()}, sections)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        self.gateway = GatewayProcess(folder, config, ports=ports, reactor=reactor)

    def take(self, play: Callable[[Peer, int], object], *, listening: bool = True) -> Service:
        """A service of one's own, whose origin the caller closes."""
        name, origin = self._spare.popitem()
        origin.play = play
        if listening:
            origin.listen()
        return Service(self.gateway, name, origin)

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *error: Any) -> None:
        for origin in self._spare.values():
            origin.close()
        self.gateway.__exit__(*error)


def kill_quietly(process: subprocess.Popen[bytes]) -> None:
    """End a helper process of a test at once."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
