"""A gateway that orders its certificates from an ACME authority, and what it shows and keeps of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL

from tests.kit.faulty_authority import FaultyAuthority
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.name_server import NameServer
from tests.kit.pebble import Pebble
from tests.kit.ports import free_ports
from tests.kit.waiting import PATIENCE, until

# Most of these tests take some seconds, for a gateway and an authority each: `make test-acme` runs all of them, `make
# test` those without this.
thorough = pytest.mark.skipif(not os.environ.get("KODER_TEST_ACME"), reason="make test-acme runs it")
# Seconds between two looks: a handshake, or the page of metrics, takes time that the ACME process would need.
_TURN = 0.05
# Nothing answers there: these tests end at the handshake, or at the gateway's own 502.
_NOWHERE = "http://127.0.0.1:9"


class AcmeGateway(GatewayProcess):
    """A gateway on `port` of `address`, whose [acme] has the authority at `directory`, `ca` and `names`' name server.

    `tenants` has the domains of each by its slug; those in `suspended` are suspended. `acme` are further keys of the
    section, `sections` further sections. It looks for its registry's changes every second.
    """

    def __init__(
        self,
        folder: Path,
        directory: str,
        ca: Path,
        names: NameServer,
        *,
        port: int,
        tenants: Mapping[str, Sequence[str]],
        suspended: Sequence[str] = (),
        address: str = "127.0.0.1",
        redirect_port: int = 0,
        acme: Mapping[str, object] | None = None,
        sections: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.port = port
        self._registry = folder / "tenants.toml"
        self.register(tenants, suspended)
        section = {
            "directory": directory,
            "ca": str(ca),
            "accept_terms": True,
            "contact": ["operations@example.com"],
            "resolver": names.address,
            "check_port": redirect_port or port,
            **({"challenge": "http-01"} if redirect_port else {}),
            **(acme or {}),
        }
        self._section = section
        self._others = {"tenants": {"registry": "tenants.toml", "refresh": "1s"}, **(sections or {})}
        redirects = (f"tcp:{redirect_port}:interface={address}",) if redirect_port else ()
        super().__init__(
            folder,
            self._written(section),
            ports=(f"ssl:{port}:interface={address}",),
            redirects=redirects,
        )
        self.state = folder / str(self._others.get("state", {}).get("dir", "state")) / "acme"

    def change(self, **acme: object) -> None:
        """Change keys of its [acme] from what they were at first, and have it read that: another ACME process begins,
        and with another authority's `directory` nobody waits for what has failed before."""
        self.config.write_text(self._written({**self._section, **acme}))
        self.signal(signal.SIGHUP)

    def _written(self, section: Mapping[str, object]) -> str:
        return configuration({"s": _NOWHERE}, {**self._others, "acme": section})

    def register(self, tenants: Mapping[str, Sequence[str]], suspended: Sequence[str] = ()) -> None:
        """Replace the registry."""
        lines: list[str] = []
        for slug, domains in tenants.items():
            status = "suspended" if slug in suspended else "active"
            lines += [
                "[[tenant]]",
                f'slug = "{slug}"',
                f"domains = {json.dumps(list(domains))}",
                f'status = "{status}"',
            ]
        new = self._registry.with_suffix(".new")
        new.write_text("\n".join([*lines, ""]))
        new.replace(self._registry)

    # What clients are shown

    def shown(self, name: str, *protocols: str) -> x509.Certificate | None:
        """The certificate of a handshake for a name, which need not be one; None if an alert or a reset ends it. With
        `protocols` offered by ALPN."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if protocols:
            context.set_alpn_protos([each.encode() for each in protocols])
        with socket.create_connection((self.address, self.port)) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(PATIENCE), 0))
            secure = SSL.Connection(context, plain)
            secure.set_tlsext_host_name(name.encode())
            secure.set_connect_state()
            try:
                secure.do_handshake()
            except (SSL.ZeroReturnError, SSL.SysCallError):
                return None
            except SSL.WantReadError:
                raise AssertionError(f"the handshake for {name} does not end") from None
            except SSL.Error:
                return None
            return secure.get_peer_certificate(as_cryptography=True)

    def serves(self, name: str) -> x509.Certificate | None:
        """The certificate that an authority has issued for a name, once handshakes show it; None before."""
        found = self.shown(name)
        if found is None or found.issuer == found.subject:
            return None
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert alternatives.get_values_for_type(x509.DNSName) == [name]
        return found

    def wait_until_served(self, *served: str, patience: float = 60) -> list[x509.Certificate]:
        """The certificates of these names, once all have one, and it is shown."""
        for name in served:
            file = self.state / "certificates" / f"{name}.pem"
            self.wait(file.exists, f"{name} has its certificate", patience)
        return [
            self.wait(lambda name=name: self.serves(name), f"the certificate of {name} is shown", patience)
            for name in served
        ]

    def wait(self, condition: Callable[[], object], what: str, patience: float = 60) -> Any:
        """The condition's value once it is true; else what was known by then is part of the failure."""
        try:
            return until(condition, what, patience, _TURN)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.records()}\n{self.log()}") from None

    # What it keeps

    def records(self) -> dict[str, dict[str, Any]]:
        """What it knows about each name, by the name."""
        found = {}
        for path in sorted((self.state / "names").glob("*.json")):
            found[path.stem] = json.loads(path.read_bytes())
        return found

    def record(self, name: str) -> dict[str, Any]:
        """What it knows about one name; nothing before it has heard of it."""
        path = self.state / "names" / f"{name}.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def is_in(self, name: str, state: str) -> Callable[[], bool]:
        """Whether a name is in this state."""
        return lambda: bool(record := self.record(name)) and record.get("state", "waiting") == state

    def count(self, result: str) -> int:
        """The orders with this result, by the metrics."""
        return int(self.metrics().get(f'koder_gateway_acme_orders_total{{result="{result}"}}', 0))

    def forget_waits(self) -> None:
        """Let no name and no authority wait any more, as after some hours. The gateway must have ended."""
        pace = self.state / "rate.json"
        if pace.exists():
            pace.write_text(json.dumps({"times": json.loads(pace.read_bytes()).get("times", [])}))
        for path in (self.state / "names").glob("*.json"):
            record = json.loads(path.read_bytes())
            path.write_text(json.dumps({**record, "next_try": 0.0}))

    # Its process beside it

    @property
    def acme_process(self) -> int:
        """The ACME process; 0 while there is none."""
        for parent in (self.pid, *self.workers):
            for child in _children(parent):
                if b"koder_gateway.acme" in _command(child):
                    return child
        return 0

    def kill_acme(self) -> None:
        """End the ACME process at once."""
        os.kill(until(lambda: self.acme_process, "there is an ACME process"), signal.SIGKILL)


class Stage:
    """An authority, its name server and the ports that it looks at, for gateways below `folder`.

    All names lead to 127.0.0.1. `pebble` are options of `Pebble`, `renewal` is the authority's (`FaultyAuthority`). A
    context manager: left, the authority has ended.
    """

    def __init__(
        self, folder: Path, *, renewal: Callable[[str], tuple[float, float]] | None = None, **pebble: Any
    ) -> None:
        self.folder = folder
        self.port, self.http_port = free_ports(2)
        with contextlib.ExitStack() as stack:
            self.names = stack.enter_context(NameServer("127.0.0.1"))
            made = Pebble(folder / "pebble", self.names, tls_port=self.port, http_port=self.http_port, **pebble)
            self.pebble = stack.enter_context(made)
            self.authority = stack.enter_context(FaultyAuthority(self.pebble, renewal))
            self._stack = stack.pop_all()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def gateway(
        self, tenants: Mapping[str, Sequence[str]], *, folder: str = "gateway", http: bool = False, **options: Any
    ) -> AcmeGateway:
        """A gateway at the port that the authority looks at; with `http` its challenge is http-01. `options` as for
        `AcmeGateway`."""
        return AcmeGateway(
            self.folder / folder,
            self.authority.directory,
            self.authority.ca,
            self.names,
            port=self.port,
            tenants=tenants,
            redirect_port=self.http_port if http else 0,
            **options,
        )


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
