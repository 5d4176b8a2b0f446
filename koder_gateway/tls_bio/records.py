"""Records both ways by OpenSSL's own calls, as pyOpenSSL binds them, through one buffer that all connections share.

Neither an exception for "no more data" nor a new buffer for each read. pyOpenSSL promises none of these names:
`usable` looks whether they are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from OpenSSL import SSL

from ..reactor.turns import read_little
from .layer import TlsLayer

lib: Any = getattr(SSL, "_lib", None)
ffi: Any = getattr(SSL, "_ffi", None)
CALLS: Final = (
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_read",
    "BIO_s_mem",
    "BIO_write",
    "ERR_clear_error",
    "SSL_ERROR_WANT_READ",
    "SSL_get_error",
    "SSL_read",
    "SSL_set_bio",
    "SSL_write",
)
_OBJECTS: Final = ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")

# The largest read of any reactor here, and then some: what one read brings is decrypted in one go.
SIZE: Final = 1 << 19
BUFFER: Any = None if ffi is None else ffi.new("char[]", SIZE)
# The same memory for Python: a slice of this is a copy of those bytes.
WINDOW: Any = None if ffi is None else ffi.buffer(BUFFER)
# Where OpenSSL says that the data of a BIO begins.
_START: Any = None if ffi is None else ffi.new("char **")
# One record (RFC 8446 section 5.1). OpenSSL is given, and gives, no more at a time: its memory BIO keeps the memory
# of its fullest moment for as long as the connection lives.
PIECE: Final = 1 << 14
# After a larger record the BIO is replaced, or the connection would keep 20 KiB in each direction. That takes two
# microseconds, a fifth of what such a record does.
SMALL: Final = 1 << 13
_WANT_READ: Any = getattr(lib, "SSL_ERROR_WANT_READ", None)
# What every message takes: found once, which else costs a tenth of the calls themselves.
BIO_READ: Any = getattr(lib, "BIO_read", None)
BIO_WRITE: Any = getattr(lib, "BIO_write", None)
SSL_READ: Any = getattr(lib, "SSL_read", None)
SSL_WRITE: Any = getattr(lib, "SSL_write", None)


class RecordLayer(TlsLayer):
    """A layer whose records OpenSSL's own calls make. Subclasses deliver plaintext, and say what an end means."""

    _ssl: Any
    _incoming: Any
    _outgoing: Any
    _private: Any
    # Records that wait for another turn, and whether one has been asked for; whether the protocol above has paused.
    _rest = b""
    _turn_asked = False
    _stopped = False

    def _hold(self, connection: SSL.Connection) -> None:
        """Take OpenSSL's own objects, which live as long as `connection` does."""
        private: Any = connection
        self._private = private
        self._ssl = private._ssl
        self._incoming = private._into_ssl
        self._outgoing = private._from_ssl

    def _let_go(self) -> None:
        """Raw pointers end with the connection that owns them: they must not be used after it."""
        self._incoming = self._outgoing = self._ssl = self._private = None

    def _shrink_incoming(self) -> None:
        """Replace the memory of what was read, all of which OpenSSL has taken."""
        private = self._private
        self._incoming = private._into_ssl = bio = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, bio, self._outgoing)

    def _shrink_outgoing(self) -> None:
        """Replace the memory of what was written, all of which has been fetched."""
        private = self._private
        self._outgoing = private._from_ssl = bio = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._incoming, bio)

    def give_back(self) -> bool:
        """Replace the memory that the handshake has grown, 1.8 KiB; False if the connection has ended. OpenSSL takes
        what it is given, and what it makes is fetched, before others have their turn: else it is left as it is."""
        if self._left or self._private is None:
            return False
        for bio, shrink in ((self._incoming, self._shrink_incoming), (self._outgoing, self._shrink_outgoing)):
            if lib.BIO_get_mem_data(bio, _START) == 0:
                shrink()
        return True

    # -- reading

    def _able_to_read(self, data: bytes) -> bool:
        """Whether what OpenSSL has been given, `data` last, is to be read: not before the handshake's end."""
        return True

    def _read_pieces(self, data: bytes, size: int) -> None:
        """Decrypt and deliver, as far as the slice of this turn goes; the rest waits for another one."""
        source = ffi.from_buffer(data)
        turns = self.turns
        until = math.inf if turns is None else turns.slice()
        total = 0
        for position in range(0, size, PIECE):
            length = min(PIECE, size - position)
            BIO_WRITE(self._incoming, source + position, length)
            last = position + length == size
            over = not last and turns is not None and turns.time() >= until
            if self._able_to_read(data):
                # The first piece by itself: it may be more than the protocol above takes in one turn.
                total = self._read(total, last or over or not position)
            if self._left:
                return
            if not last and (over or self._stopped):
                self._rest = data[position + length :]
                if not self._stopped:
                    self._pause_below()
                    read_little(self.transport)
                    self._ask_turn()
                break
        self._shrink_incoming()

    def _ask_turn(self) -> None:
        if not self._turn_asked and self.turns is not None:
            self._turn_asked = True
            self.turns.later(self._next_turn, self.address)

    def _next_turn(self) -> None:
        self._turn_asked = False
        rest = self._rest
        if self._left:
            self._rest = b""
        elif rest and not self._stopped:
            self._rest = b""
            # What others have left in OpenSSL's queue of errors would be taken for this connection's.
            lib.ERR_clear_error()
            self._read_rest(rest, len(rest))
            if not self._rest and not self._stopped and not self._left:
                self._resume_below()

    def _read_rest(self, rest: bytes, size: int) -> None:
        """Read what has waited for this turn."""
        self._read_pieces(rest, size)

    def _pause_below(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def _resume_below(self) -> None:
        transport: Any = self.transport
        transport.resumeProducing()

    def read_little(self) -> None:
        """Read less at once."""
        read_little(self.transport)

    def pauseProducing(self) -> None:
        """Read no more."""
        self._stopped = True
        if not self._gone:
            self._pause_below()

    def resumeProducing(self) -> None:
        """Read again: first what has come already."""
        self._stopped = False
        if self._rest:
            self._ask_turn()
        elif not self._gone:
            self._resume_below()

    def _read(self, total: int, last: bool) -> int:
        """Decrypt what is there behind the `total` bytes that are decrypted already, and deliver if it is the last.

        Returns how many bytes are decrypted and not delivered.
        """
        # The local name keeps OpenSSL's object alive when the connection ends in the midst of this.
        ssl = self._ssl
        while True:
            count = SSL_READ(ssl, BUFFER + total, SIZE - total)
            if count <= 0:
                break
            total += count
            if total == SIZE:
                self._deliver(WINDOW[:total])
                if self._left:
                    return 0
                total = 0
                lib.ERR_clear_error()
        error = lib.SSL_get_error(ssl, count)
        end = None if error == _WANT_READ else self._end(error)
        if end is None and not last:
            return total
        plain = WINDOW[:total]
        if end is None:
            self._reply()
        if total and not self._left:
            self._deliver(plain)
        if end is not None and not self._left:
            self._over(end)
        return 0

    def _reply(self) -> None:
        """Send what reading has made OpenSSL say, before its plaintext is delivered."""
        self._answer(self._pending())

    def _deliver(self, plain: bytes) -> None:
        """Hand plaintext to the protocol above."""

    def _end(self, error: int) -> str:
        """What has ended TLS; OpenSSL's queue of errors is empty after that."""
        lib.ERR_clear_error()
        return ""

    def _over(self, fault: str) -> None:
        """The other side has ended TLS: by close_notify, or by records that are none."""

    # -- writing

    def _encrypt(self, data: bytes, size: int) -> None:
        """Make records of `data` and send them."""
        if size > SMALL:
            self._write_pieces(data, size)
        elif SSL_WRITE(self._ssl, data, size) == size:
            self._flush()
        else:
            self._fail()

    def _write_pieces(self, data: bytes, size: int) -> None:
        source = ffi.from_buffer(data)
        ssl, outgoing = self._ssl, self._outgoing
        total = 0
        full: list[bytes] = []
        for position in range(0, size, PIECE):
            length = min(PIECE, size - position)
            if SSL_WRITE(ssl, source + position, length) != length:
                self._fail()
                return
            total += BIO_READ(outgoing, BUFFER + total, SIZE - total)
            if total > SIZE - 2 * PIECE:
                full.append(WINDOW[:total])
                total = 0
        full.append(WINDOW[:total])
        self._shrink_outgoing()
        # In one go: a producer that this pauses may write or close at once, which comes after all of it.
        self._write_below(full[0] if len(full) == 1 else b"".join(full))

    def _fail(self) -> None:
        """OpenSSL can write no more on this connection."""
        lib.ERR_clear_error()
        self.abortConnection()

    def _pending(self) -> bytes:
        """What OpenSSL has to send."""
        count = BIO_READ(self._outgoing, BUFFER, SIZE)
        return WINDOW[:count] if count > 0 else b""

    def _flush(self) -> None:
        """Hand what OpenSSL has to send to the transport below."""
        count = BIO_READ(self._outgoing, BUFFER, SIZE)
        if count > 0:
            self._write_below(WINDOW[:count])


def usable(connection: SSL.Connection, calls: Iterable[str] = ()) -> bool:
    """Whether pyOpenSSL, and connections like this one, are as `RecordLayer` and those who call these too expect."""
    if ffi is None or not all(hasattr(lib, name) for name in (*CALLS, *calls)):
        return False
    return all(getattr(connection, name, None) is not None for name in _OBJECTS)
