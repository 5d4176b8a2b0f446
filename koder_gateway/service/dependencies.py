"""What the gateway takes for granted of the inside of other packages: one table, checked before it starts.

None of these packages promises what is used here, so a new version may change it. Where safety depends on it the
gateway refuses to start. Where only pace or a figure does, it says so in the log and in `koder_gateway_degraded`.
Each check looks at the package that is installed, not at its version, wherever looking is possible.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import asyncioreactor, tcp, unix
from twisted.internet.endpoints import _WrappingProtocol
from twisted.internet.protocol import Factory, Protocol

from ..tls import (
    completed_handshakes,
    contexts,
    handshake_failures,
    lean_connection,
    sni_callback,
    stream,
)
from ..tls_bio import records
from ..transports import available
from ..upstream import openssl_transport
from ..wire.chunk_runs import read_run
from ..wire.huffman import HuffmanError
from ..wire.huffman import decode as decode_huffman
from ..wire.request_reader import RequestReader


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that `package` does not promise. `key` names it in the metric, `otherwise` is what the gateway loses
    without it. `calls` are the functions of OpenSSL's that it is about. A `vital` one decides whether it starts."""

    key: str
    package: str
    holds: Callable[[], bool]
    otherwise: str
    vital: bool = False
    calls: Sequence[str] = ()

    def kept(self) -> bool:
        """Whether the installed package is as it is expected."""
        try:
            return all(hasattr(records.lib, name) for name in self.calls) and self.holds()
        except Exception:  # whatever a package raises whose inside is another
            return False

    def line(self) -> str:
        """One line for the log: what is lost, and what to install."""
        try:
            installed = version(self.package)
        except PackageNotFoundError:
            installed = "(its version is not known)"
        state = "the gateway does not start" if self.vital else "degraded"
        return (
            f"{self.package} {installed} is not as this gateway expects it ({self.key}): {self.otherwise}; {state}."
            f" Install {wanted(self.package)}"
        )


def wanted(package: str) -> str:
    """The versions of a package that the gateway asks for, as pip takes them."""
    try:
        asked = requires("koder-gateway") or []
    except PackageNotFoundError:
        asked = []
    for each in asked:
        requirement = each.partition(";")[0].strip()
        name = requirement.rstrip(".,<>=!~ 0123456789")
        if name.partition("[")[0].strip().lower() == package.lower():
            return f'"{requirement}"'
    return f"the version of {package} that the gateway's setup.cfg asks for"


def _connection() -> SSL.Connection:
    return SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)


def _groups() -> bool:
    return contexts.set_groups(SSL.Context(SSL.TLS_SERVER_METHOD)) in contexts.GROUPS


def _hybrid_group() -> bool:
    return contexts.set_groups(SSL.Context(SSL.TLS_SERVER_METHOD)) == contexts.GROUPS[0]


def _name_callback() -> bool:
    context: Any = SSL.Context(SSL.TLS_SERVER_METHOD)
    known: Any = SSL.Connection
    return hasattr(context, "_context") and hasattr(known, "_reverse_mapping") and records.ffi is not None


def _adopted_ports() -> bool:
    made = tcp.Port(0, Factory())
    kinds = (tcp.Port, unix.Port)
    return made._preexistingSocket is None and all(hasattr(kind, "_fromListeningDescriptor") for kind in kinds)


def _endings() -> bool:
    kind: Any = tcp.Connection
    return callable(kind.connectionLost) and not (kind.disconnected or kind.disconnecting or kind.connected)


def _wrapper() -> bool:
    inner = Protocol()
    wrapper: Any = _WrappingProtocol(None, inner)
    return wrapper._wrappedProtocol is inner


def _asyncio_reactor() -> bool:
    kind: Any = asyncioreactor.AsyncioSelectorReactor
    # No instance is made: that would take the process's wake-up descriptor. Its attributes are names in its methods.
    codes = [each.__code__ for each in vars(kind).values() if hasattr(each, "__code__")]
    used = {name for code in codes for name in code.co_names}
    inside = {"_asyncioEventloop", "_timerHandle", "_scheduledAt", "_readers", "_writers"}
    return inside <= used and all(hasattr(kind, name) for name in ("_reschedule", "_signalsFactory"))


def _adopted_streams() -> bool:
    if not available():
        return True
    import uvloop

    loop = uvloop.new_event_loop()
    here, there = socket.socketpair()
    with closing(loop), closing(here), closing(there):
        here.setblocking(False)
        coroutine: Any = loop.connect_accepted_socket(asyncio.Protocol, here)
        waited = coroutine.send(None)
        coroutine.close()
        return hasattr(waited, "add_done_callback")


def _chunk_callbacks() -> bool:
    """llhttp tells the data of chunks piece by piece: a run of chunks is what one by one they are."""
    chunks = b"1\r\nx\r\n" * 20 + b"a\r\n0123456789\r\n" * 20
    run = read_run(chunks + b"0\r\n\r\n" + b" " * 32, 0, 1 << 16)
    return run is not None and run.size > 0 and (b"x" * 20 + b"0123456789" * 20).startswith(run.payload)


# A good head, and heads that are malformed in one way each: llhttp refuses them unless it is told to be lenient.
_GOOD: Final = b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"
_MALFORMED: Final = (
    _GOOD.replace(b"A:", b"A :"),
    _GOOD.replace(b"A: b", b"A: b\r\n c"),
    _GOOD.replace(b"A: b\r\n", b"A: b\nB: c\r\n"),
    _GOOD.replace(b"A: b", b"A: \x00"),
    _GOOD.replace(b"A: b", b"Content-Length: 1\r\nContent-Length: 2"),
    _GOOD.replace(b"A: b", b"Content-Length: 1\r\nTransfer-Encoding: chunked"),
    _GOOD.replace(b"A: b", b"Content-Length: +1"),
)


def _strict_heads() -> bool:
    reader = RequestReader(b"x-tenant-id", max_target=100, max_fields=100)
    return reader.read(_GOOD).refusal is None and all(reader.read(head).refusal for head in _MALFORMED)


def _huffman() -> bool:
    """The example of RFC 7541 appendix C.4.1, and the code of EOS, which no string may have."""
    try:
        decode_huffman(b"\xff\xff\xff\xff")
    except HuffmanError:
        return decode_huffman(bytes.fromhex("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
    return False


ASSUMPTIONS: Final = (
    Assumption(
        "key-exchange-groups",
        "pyOpenSSL",
        _groups,
        "clients could choose finite-field groups, which anybody can make a server compute by the thousand",
        vital=True,
        calls=("SSL_CTX_set1_curves_list",),
    ),
    Assumption(
        "names-of-sessions",
        "pyOpenSSL",
        sni_callback.usable,
        "TLS sessions would be resumed under another host name than theirs",
        vital=True,
        calls=sni_callback.CALLS,
    ),
    Assumption(
        "records",
        "pyOpenSSL",
        lambda: records.usable(_connection(), stream.CALLS),
        "handshakes that fail would not be charged to their addresses",
        vital=True,
        calls=(*records.CALLS, *stream.CALLS),
    ),
    Assumption(
        "lean-connections",
        "pyOpenSSL",
        lean_connection.lean,
        "new TLS connections cost more",
        calls=lean_connection.CALLS,
    ),
    Assumption(
        "records-of-services",
        "pyOpenSSL",
        lambda: records.usable(_connection(), openssl_transport.CALLS),
        "TLS to services costs more",
        calls=openssl_transport.CALLS,
    ),
    Assumption(
        "handshake-figures",
        "pyOpenSSL",
        completed_handshakes.complete,
        "the metric of TLS handshakes lacks kinds, versions or groups",
        calls=completed_handshakes.CALLS,
    ),
    Assumption(
        "reasons",
        "pyOpenSSL",
        lambda: records.ffi is not None and hasattr(_connection(), "_ssl"),
        "the log has numbers in place of reasons why certificates are not trusted",
        calls=handshake_failures.CALLS,
    ),
    Assumption(
        "post-quantum-group",
        "cryptography",
        _hybrid_group,
        "its OpenSSL has no X25519MLKEM768: what is recorded today may be read by future quantum computers",
    ),
    Assumption(
        "strict-heads",
        "httptools",
        _strict_heads,
        "malformed heads of requests would be accepted",
        vital=True,
    ),
    Assumption(
        "chunk-callbacks", "httptools", _chunk_callbacks, "small chunks cost more, or are misread", vital=True
    ),
    Assumption("huffman-code", "hpack", _huffman, "fields of HTTP/2 would be misread", vital=True),
    Assumption(
        "adopted-streams", "uvloop", _adopted_streams, "sockets could not be handed to the event loop", vital=True
    ),
    Assumption(
        "event-loop",
        "Twisted",
        _asyncio_reactor,
        "a gateway that becomes a daemon would lose what it watches",
        vital=True,
    ),
    Assumption(
        "adopted-ports", "Twisted", _adopted_ports, "the sockets of systemd would be removed at the end", vital=True
    ),
    Assumption("endings", "Twisted", _endings, "a response that came just before a reset of its connection is lost"),
    Assumption("wrappers", "Twisted", _wrapper, "reads from services cost more"),
)


@cache
def broken() -> tuple[Assumption, ...]:
    """Those that do not hold in this process; looked at once, since packages do not change while it runs."""
    return tuple(each for each in ASSUMPTIONS if not each.kept())


def check_dependencies() -> None:
    """Raise ValueError, with a line for each, if a vital assumption does not hold."""
    lines = [each.line() for each in broken() if each.vital]
    if lines:
        raise ValueError("\n".join(lines))


def degradations() -> list[str]:
    """A line for each other assumption that does not hold."""
    return [each.line() for each in broken() if not each.vital]


def degraded() -> dict[tuple[str, str], bool]:
    """For the metric: whether each of these does not hold, by package and key."""
    found = broken()
    return {(each.package, each.key): each in found for each in ASSUMPTIONS if not each.vital}
