"""Pebble, the test server of Let's Encrypt: a real ACME authority (RFC 8555) in a process of its own."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509

from tests.kit.authority import Authority
from tests.kit.gateways import kill_quietly
from tests.kit.name_server import NameServer
from tests.kit.ports import free_ports
from tests.kit.waiting import until

# What Pebble calls the parts of its protocol (RFC 8555 section 7.1), and what they are called here.
KINDS = {
    "dir": "directory",
    "nonce-plz": "nonce",
    "sign-me-up": "account",
    "my-account": "account",
    "order-plz": "new-order",
    "my-order": "order",
    "authZ": "authorization",
    "chalZ": "challenge",
    "finalize-order": "finalize",
    "certZ": "certificate",
}


class Pebble:
    """A Pebble below `folder`, which has all names resolved by `names`. A context manager: left, it has ended.

    It looks for challenges on `tls_port` and `http_port`. `validity` is the life of its certificates, in seconds;
    `external` are the keys of external accounts by their ids, without which nobody gets an account then; `blocked`
    are domains that it refuses. Of the good nonces it refuses `bad_nonces` in a hundred, and validates within
    `slowness` seconds. `directory` is its URL, `ca` the file of the authority that its own HTTPS certificate is from.
    """

    def __init__(
        self,
        folder: Path,
        names: NameServer,
        *,
        tls_port: int,
        http_port: int = 0,
        validity: int = 90 * 86400,
        external: Mapping[str, str] | None = None,
        blocked: Sequence[str] = (),
        bad_nonces: int = 5,
        reused: int = 0,
        slowness: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = Authority(folder, "Pebble HTTPS")
        self.ca = self._authority.path
        self.pair = self._authority.issue("localhost", "127.0.0.1")
        self.port, management = free_ports(2)
        self.directory = f"https://127.0.0.1:{self.port}/dir"
        self._management = f"https://127.0.0.1:{management}"
        self.tls_port = tls_port
        self.http_port = http_port
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(self.pair.certificate),
            "privateKey": str(self.pair.key),
            "httpPort": http_port or 1,
            "tlsPort": tls_port or 1,
            "certificateValidityPeriod": validity,
            "externalAccountBindingRequired": bool(external),
            "externalAccountMACKeys": dict(external or {}),
            "domainBlocklist": list(blocked),
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        self._words = ["pebble", "-strict", "-config", str(folder / "pebble.json"), "-dnsserver", names.address]
        speed = {"PEBBLE_VA_SLEEPTIME": str(slowness)} if slowness else {"PEBBLE_VA_NOSLEEP": "1"}
        self._environment = {
            **os.environ,
            "PEBBLE_WFE_NONCEREJECT": str(bad_nonces),
            "PEBBLE_AUTHZREUSE": str(reused),
            **speed,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it: it knows no account and no order, and has a new root."""
        with (self._folder / "pebble.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )
        until(self._serves, "Pebble serves")

    def run_on(self, processors: set[int]) -> None:
        """Let it use only these."""
        assert self._process is not None
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), processors)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            kill_quietly(self._process)
            self._process = None

    def log(self) -> str:
        """What it has written so far."""
        return (self._folder / "pebble.log").read_text(errors="replace")

    def root(self) -> x509.Certificate:
        """The root that its certificates lead to."""
        return x509.load_pem_x509_certificate(self._get(f"{self._management}/roots/0"))

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts the certificates that it issues."""
        return ssl.create_default_context(cadata=self._get(f"{self._management}/roots/0").decode())

    def context(self) -> ssl.SSLContext:
        """A client's context that trusts Pebble's own HTTPS certificate."""
        return ssl.create_default_context(cafile=str(self.ca))

    def _get(self, url: str) -> bytes:
        with urllib.request.urlopen(url, context=self.context()) as answer:
            return bytes(answer.read())

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return bool(self._get(self.directory) and self._get(f"{self._management}/roots/0"))
        except OSError:
            return False

    def __enter__(self) -> Pebble:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
