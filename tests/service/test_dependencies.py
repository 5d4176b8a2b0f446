"""What is taken for granted of other packages: each assumption holds, is noticed when it does not, and is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import pytest
from OpenSSL import SSL
from twisted.internet import asyncioreactor, tcp
from twisted.internet.testing import MemoryReactorClock

from koder_gateway import Gateway, load
from koder_gateway.cli import main
from koder_gateway.service import dependencies
from koder_gateway.service.dependencies import ASSUMPTIONS, Assumption, broken, degradations, degraded
from koder_gateway.tls import contexts, sni_callback
from koder_gateway.tls.certificates import CertificateError, self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls_bio import records

BY_KEY = {each.key: each for each in ASSUMPTIONS}


class Without:
    """OpenSSL's functions as pyOpenSSL binds them, without one of them."""

    def __init__(self, lib: Any, name: str) -> None:
        self._lib, self._name = lib, name

    def __getattr__(self, asked: str) -> Any:
        if asked == self._name:
            raise AttributeError(asked)
        return getattr(self._lib, asked)


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    broken.cache_clear()
    yield
    broken.cache_clear()


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda each: each.key)
def test_it_holds_for_the_installed_package(assumption: Assumption) -> None:
    assert assumption.kept(), assumption.line()


@pytest.mark.parametrize(("key", "call"), [(each.key, call) for each in ASSUMPTIONS for call in each.calls if call])
def test_a_missing_function_of_openssls_is_noticed(monkeypatch: pytest.MonkeyPatch, key: str, call: str) -> None:
    monkeypatch.setattr(records, "lib", Without(records.lib, call))
    assert not BY_KEY[key].kept()


class Lenient:
    """A parser that takes everything, and hears nothing."""

    def __init__(self, sink: object) -> None:
        pass

    def feed_data(self, data: bytes) -> None:
        pass


GONE = object()


def _raise(*_: object) -> None:
    raise TypeError("another signature")


@pytest.mark.parametrize(
    ("key", "owner", "name", "changed"),
    [
        ("strict-heads", httptools, "HttpRequestParser", Lenient),
        ("chunk-callbacks", httptools, "HttpRequestParser", Lenient),
        ("huffman-code", dependencies, "decode_huffman", lambda data: data),
        ("adopted-ports", tcp.Port, "_fromListeningDescriptor", GONE),
        ("adopted-ports", tcp.Port, "_preexistingSocket", GONE),
        ("endings", tcp.Connection, "connectionLost", GONE),
        ("endings", tcp.Connection, "disconnected", True),
        ("wrappers", dependencies, "_WrappingProtocol", _raise),
        ("event-loop", asyncioreactor.AsyncioSelectorReactor, "_reschedule", GONE),
        ("post-quantum-group", contexts, "GROUPS", (b"nonsense", b"X25519")),
        ("key-exchange-groups", contexts, "GROUPS", (b"nonsense",)),
        ("names-of-sessions", sni_callback, "_connections", None),
        ("records", records, "ffi", None),
    ],
)
def test_a_changed_package_is_noticed(
    monkeypatch: pytest.MonkeyPatch, key: str, owner: Any, name: str, changed: Any
) -> None:
    if changed is GONE:
        for kind in owner.__mro__:
            if name in vars(kind):
                monkeypatch.delattr(kind, name)
    else:
        monkeypatch.setattr(owner, name, changed)
    assert not BY_KEY[key].kept()


def test_a_gateway_does_not_start_without_what_is_vital(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "lib", Without(records.lib, "SSL_CTX_set1_curves_list"))
    with pytest.raises(
        ValueError, match=r"^pyOpenSSL \S+ is not as .*\(key-exchange-groups\).* Install .*pyOpenSSL"
    ) as told:
        Gateway(load(None), reactor=MemoryReactorClock())
    assert len(str(told.value).splitlines()) == 1


def test_a_context_is_not_made_with_openssls_own_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "acme.id.test")
    monkeypatch.setattr(contexts, "lib", Without(records.lib, "SSL_CTX_set1_curves_list"))
    with pytest.raises(CertificateError, match=r"cannot choose key exchange groups; install"):
        ServerContexts([certificate])


def test_a_context_is_not_made_without_the_names_of_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "acme.id.test")
    monkeypatch.setattr(sni_callback, "_lib", Without(records.lib, "SSL_set_SSL_CTX"))
    with pytest.raises(CertificateError, match=r"cannot tell which name a client asks for .*; install"):
        ServerContexts([certificate])


@pytest.fixture
def slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyOpenSSL's connections have an attribute that the gateway does not know."""
    begin = SSL.Connection.__init__

    def more(self: SSL.Connection, *given: object) -> None:
        begin(self, *given)  # type: ignore[arg-type]
        self._more = None  # type: ignore[attr-defined]

    monkeypatch.setattr(SSL.Connection, "__init__", more)


@pytest.mark.usefixtures("slower")
def test_what_only_costs_time_is_said_in_one_line_and_a_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = degradations()
    assert "(lean-connections): new TLS connections cost more; degraded. Install " in line
    found = degraded()
    assert [labels for labels, state in found.items() if state] == [("pyOpenSSL", "lean-connections")]
    assert ("Twisted", "wrappers") in found
    gateway = Gateway(load(None), reactor=MemoryReactorClock())
    page = gateway.process.metrics_page(gateway.sampled).decode()
    assert 'koder_gateway_degraded{assumption="lean-connections",package="pyOpenSSL"} 1.0' in page
    assert 'koder_gateway_degraded{assumption="wrappers",package="Twisted"} 0.0' in page
    config = tmp_path / "koder-gateway.toml"
    config.write_text('[state]\ndir = "state"\n')
    assert main(["check", str(config)]) == 0
    assert line in capsys.readouterr().err


PATCHED = """
import sys
from OpenSSL import SSL

class Without:
    def __init__(self, lib): self.__dict__["lib"] = lib
    def __getattr__(self, asked):
        if asked == "SSL_CTX_set1_curves_list": raise AttributeError(asked)
        return getattr(self.lib, asked)

SSL._lib = Without(SSL._lib)
from twisted.scripts.twistd import run
sys.argv = ["twistd", "-n", "--pidfile=", "koder-gateway", *sys.argv[1:]]
run()
"""


def test_a_daemon_that_cannot_be_safe_ends_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "koder-gateway.toml"
    config.write_text('[state]\ndir = "state"\n')
    words = ("--config", str(config), "--port", "tcp:0:interface=127.0.0.1")
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("koder-gateway: pyOpenSSL ")
    assert "(key-exchange-groups)" in line
    assert "Traceback" not in done.stdout
