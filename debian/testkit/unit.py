"""The installed unit, run as systemd would run it, with a service behind it."""

from __future__ import annotations

import configparser
import contextlib
import functools
import http.client
import http.server
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from .saying import NAME, PATIENCE, Failed, expect, run, say
from .trees import STATE, Debian, Unpacked

UNIT = f"lib/systemd/system/{NAME}.service"
CONFIGURATION = f"etc/{NAME}/{NAME}.toml"
ENVIRONMENT = f"etc/default/{NAME}"
HOST = "koder.id.koder.dev"
SERVICE, PATH = "session", "/v1/sessions/7?a=b"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Echo(http.server.BaseHTTPRequestHandler):
    """A service that answers with what it received."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "fields": [[k.lower(), v] for k, v in self.headers.items()]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps quiet."""


@contextlib.contextmanager
def service() -> Iterator[int]:
    """The port of a running Echo."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class Unit:
    """The installed unit, run as systemd would."""

    def __init__(self, tree: Debian | Unpacked) -> None:
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",), interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string((tree.root / UNIT).read_text())
        self._tree = tree
        self._keys = parser["Service"]
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self.log = tree.root / "gateway.log"

    def start(self, listening: socket.socket | None = None) -> None:
        """Start it for the first time; with a listening socket as systemd starts what has a socket unit."""
        expect(self._keys["Type"] == "notify", "the unit is not of Type=notify")
        expect(self._keys["User"] == NAME, f"the unit does not run as {NAME}")
        expect(self._keys["EnvironmentFile"] == f"-/{ENVIRONMENT}", "the unit does not read its environment file")
        (self._tree.root / "run").mkdir(exist_ok=True)
        inside = f"run/{NAME}.notify"
        # That of the unit that ran before.
        (self._tree.root / inside).unlink(missing_ok=True)
        self._notices.bind(str(self._tree.root / inside))
        (self._tree.root / inside).chmod(0o666)
        self._environment = environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "STATE_DIRECTORY": self._tree.path(STATE),
            "NOTIFY_SOCKET": self._tree.path(inside),
            **self._environment_file(),
        }
        say("check the shipped configuration")
        run(*self._command("ExecStartPre", environment), env=environment)
        say("start")
        self.start_again(listening)

    def start_again(self, listening: socket.socket | None = None) -> None:
        """Start it, and return once it is ready."""
        environment, command = dict(self._environment), self._command("ExecStart", self._environment)
        first: Callable[[], object] | None = None
        if listening is not None:
            held = listening.fileno()
            # sd_listen_fds(3): its process number, which only the shell in between knows, and the descriptor 3.
            command = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *command]
            environment |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "https"}
            first = functools.partial(os.dup2, held, 3)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                preexec_fn=first,
                pass_fds=(3,) if first else (),
            )
        self.wait_for("READY=1")

    def reload(self) -> None:
        say("reload")
        expect(self._process, "the daemon has not been started")
        run(*self._command("ExecReload", {"MAINPID": str(self._process.pid)}))
        self.wait_for("RELOADING=1")
        self.wait_for("READY=1")

    def stop(self) -> None:
        say("stop")
        process = self._signal(signal.SIGTERM)
        limit = float(self._keys["TimeoutStopSec"].removesuffix("s"))
        expect(process.wait(limit) == 0, f"after SIGTERM it exited with {process.returncode}")

    def kill(self) -> None:
        """Leaves nothing running, whatever happened."""
        self._notices.close()
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait_for(self, notice: str) -> None:
        """Returns when the daemon has told systemd so; Failed when it ended or took too long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            expect(self._process and self._process.poll() is None, "the daemon ended")
            self._notices.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                if notice in self._notices.recv(65536).decode().splitlines():
                    return
        raise Failed(f"no {notice} within {PATIENCE:.0f} s")

    def _signal(self, number: int) -> subprocess.Popen[bytes]:
        expect(self._process and self._process.poll() is None, "the daemon ended")
        assert self._process
        self._process.send_signal(number)
        return self._process

    def _environment_file(self) -> dict[str, str]:
        lines = (self._tree.root / ENVIRONMENT).read_text().splitlines()
        pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        return {key: " ".join(shlex.split(value)) for key, value in pairs}

    def _command(self, key: str, environment: Mapping[str, str]) -> list[str]:
        """The command line of the key; a word that is a $VARIABLE becomes as many words as its value has."""
        words: list[str] = []
        for word in self._keys[key].split():
            words.extend(environment.get(word[1:], "").split() if word.startswith("$") else [word])
        return self._tree.command(words)


def ask(port: int, host: str, path: str) -> tuple[int, http.client.HTTPMessage, dict[str, object]]:
    """Status, fields and JSON of one GET over TLS, the certificate verified for the host."""
    context = ssl.create_default_context(cadata=ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname=host) as stream,
    ):
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(stream)
        response.begin()
        return response.status, response.headers, json.loads(response.read())


def serves(port: int) -> None:
    """One request passes to the service with its tenant, another is refused as the contract says."""
    status, _, received = ask(port, HOST, PATH)
    expect(status == 200, f"a request through the gateway gave {status}: {received}")
    expect(received["path"] == PATH, f"the service received {received}")
    expect(["x-tenant-id", "koder"] in received["fields"], f"the service received {received}")  # type: ignore[operator]
    status, fields, problem = ask(port, HOST, "/nowhere")
    expect((status, problem.get("code")) == (404, "no_route"), f"no route gave {status}: {problem}")
    expect(fields["Content-Type"] == "application/problem+json", f"a refusal is {fields['Content-Type']}")


def direct(configuration: Path, port: int) -> None:
    """Has the shipped configuration lead to the port, as its operator would: takes a # away, writes an address."""
    line = f'{SERVICE} = "http://127.0.0.1:{port}"'
    text, replaced = re.subn(rf"^#{SERVICE} = .*$", line, configuration.read_text(), flags=re.MULTILINE)
    expect(replaced == 1, f"the shipped configuration has {replaced} lines that begin with #{SERVICE} = ")
    configuration.write_text(text)
