"""Sessions that are resumed only under the name that they were created for: the client's hello is parsed before
OpenSSL does.

OpenSSL decides whether a session is resumed before it asks for the name's context, and a resumed session of TLS 1.2
then reports its own name, whatever the client asked for. At that time it compares one thing: the session ID context,
which a connection takes from its TLS context. So the name is read from the hello's bytes and becomes that ID context.
A ticket of another name is then not an error: its client makes a full handshake, with the certificate of the name
that it asked for (RFC 6066 section 3, RFC 8446 section 4.6.1).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from OpenSSL import SSL

from .lean_connection import LeanConnection

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
# The OpenSSL functions that are needed here; the creator of these connections checks that they exist.
CALLS: Final = ("BIO_get_mem_data", "SSL_CTX_set_session_id_context", "SSL_set_SSL_CTX")

# The longest hello that is parsed; one with a key share of every kind has a few thousand bytes.
_LARGEST: Final = 1 << 16
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = b"\0\0"
_ALPN: Final = b"\0\x10"
# An ALPN extension (RFC 7301 section 3.1) that offers acme-tls/1 and nothing else, after its type.
_CHALLENGE: Final = b"\0\x0d\0\x0b\x0aacme-tls/1"
# A record's header (RFC 8446 section 5.1), a handshake message's (section 4).
_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
# Version and random.
_FIXED: Final = 2 + 32


class ClientHello:
    """The first ClientHello of a connection, as its bytes arrive. `challenge` is whether the client only wants the
    answer to a challenge of an ACME authority (RFC 8737), once the hello is complete."""

    def __init__(self) -> None:
        self.challenge = False
        self._records = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The server name, b"" if the client sends none, as soon as the hello is complete; None before.

        Raises ValueError if it is not a hello, or too long. OpenSSL handles it in either case.
        """
        records, message = self._records, self._message
        records += data
        while len(records) >= _HEADER:
            end = _HEADER + (records[3] << 8 | records[4])
            if records[0] != _HANDSHAKE:
                raise ValueError("no handshake")
            if len(records) < end:
                break
            message += records[_HEADER:end]
            del records[:end]
            if len(message) >= _MESSAGE_HEADER:
                end = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
                if message[0] != _CLIENT_HELLO:
                    raise ValueError("no hello")
                if len(message) >= end:
                    hello = bytes(message[_MESSAGE_HEADER:end])
                    # The search costs a fraction of the parsing, and nearly no hello has these bytes.
                    self.challenge = _CHALLENGE in hello and _extension(hello, _ALPN) == _CHALLENGE[2:]
                    # The list's length, the type of name, its length: OpenSSL refuses a list of two.
                    return _extension(hello, _SERVER_NAME)[5:]
        if len(records) + len(message) > _LARGEST:
            raise ValueError("a hello that is too large")
        return None


class NamedConnection(LeanConnection):
    """A server's connection over memory BIOs whose session is bound to the name in the client's hello.

    `began` is that name as `plain_name` returns it, None until it is known, and `challenge` is that of the hello. If
    `answerable`, its owner ends the connection with the handshake where it has become `answered`: the client gets
    the certificate of a challenge. Otherwise it needs no cooperation from code that calls `do_handshake` each time
    that bytes arrive, as Twisted does.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context)
        self.began: bytes | None = None
        self.challenge = self.answerable = self.answered = False
        self._greeting: ClientHello | None = ClientHello()

    def do_handshake(self) -> None:
        """See pyOpenSSL's."""
        self.look()
        super().do_handshake()

    def look(self) -> None:
        """Read the name in the bytes that have arrived, before OpenSSL reads them."""
        hello = self._greeting
        if hello is None:
            return
        private: Any = self
        start = _ffi.new("char **")
        size = _lib.BIO_get_mem_data(private._into_ssl, start)
        if size <= 0:
            return
        try:
            # OpenSSL consumes everything, so the next bytes there are new.
            name = hello.feed(_ffi.buffer(start[0], min(size, _LARGEST))[:])
        except (ValueError, IndexError):
            self._greeting = None
            return
        if name is not None:
            self._greeting = None
            self.challenge = hello.challenge
            self.began = plain_name(name)
            _tie(self, self.began)


def plain_name(name: bytes | None) -> bytes:
    """A server name in the form in which names are compared; b"" for none."""
    return (name or b"").lower().removesuffix(b".")


# Provides its session ID context, and serves no client.
_lender = SSL.Context(SSL.TLS_SERVER_METHOD)


def _tie(connection: SSL.Connection, name: bytes) -> None:
    """Let a connection create and resume only sessions of this name.

    A connection that gets another TLS context takes over that context's ID context, but only if it still has the one
    of its previous context. So it takes the lender's, and keeps it, since the lender's has changed when it switches
    back.
    """
    lender: Any = _lender
    identifiers = hashlib.sha256(name).digest()
    context = connection.get_context()
    _lib.SSL_CTX_set_session_id_context(lender._context, identifiers, len(identifiers))
    connection.set_context(_lender)
    _lib.SSL_CTX_set_session_id_context(lender._context, b"", 0)
    connection.set_context(context)


def _extension(hello: bytes, kind: bytes) -> bytes:
    """An extension's data in the body of a hello (RFC 8446 sections 4.1.2 and 4.2); b"" for none.

    Raises IndexError for a hello that ends too early.
    """
    position = _FIXED + 1 + hello[_FIXED]
    position += 2 + (hello[position] << 8 | hello[position + 1])
    position += 1 + hello[position]
    # Skip the length of the extensions.
    position += 2
    while position < len(hello):
        start = position + 4
        end = start + (hello[position + 2] << 8 | hello[position + 3])
        if hello[position : position + 2] == kind:
            return hello[start:end]
        position = end
    return b""
