"""The authorities that the gateway trusts for a service, and the client certificate that it shows it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL, crypto

from ..files.pem import PemError, certificates_in, private_key_in, public_key_der, read_pem
from ..tls_bio.own_certificate import use_pair
from .peer_identity import PeerIdentity

_PROTOCOL: Final = b"http/1.1"
# A bundle of many authorities, each with its text before it, is larger than any chain.
_LARGEST: Final = 1 << 24
# Forward secret and authenticated only; of TLS 1.3 OpenSSL has no others.
_TLS12_SUITES: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL"


class TrustError(ValueError):
    """Files that cannot be used; the text has a line for each fault, which names the file."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Two are the same if the files have the same contents, whatever they are called: what a reload asks.

    `authorities` and `chain` (the gateway's own certificate, leaf first) are PEM, and so is `key`. Without
    `authorities` the system's are trusted; `system` is then what tells one state of those from the next.
    """

    authorities: bytes = b""
    chain: bytes = b""
    key: bytes = field(default=b"", repr=False)
    system: tuple[object, ...] = ()
    certificate_path: Path | None = field(default=None, compare=False)
    authorities_path: Path | None = field(default=None, compare=False)

    def warnings(self, now: float, ahead: float = 0.0) -> Iterator[str]:
        """Why services refuse the gateway's certificate, or none is trusted, now or in `ahead` seconds; `now` is in
        seconds since the epoch. The certificate is shown all the same: the services decide."""
        if self.chain:
            leaf = certificates_in(self.chain)[0]
            begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
            if begin.timestamp() > now:
                yield f"{self.certificate_path}: not valid before {begin:%Y-%m-%d}; check the clock"
            elif end.timestamp() <= now + ahead:
                yield f"{self.certificate_path}: {_ending(end.timestamp(), now)} on {end:%Y-%m-%d}; renew it"
        if self.authorities:
            end = max(c.not_valid_after_utc for c in certificates_in(self.authorities))
            if end.timestamp() <= now + ahead:
                told = _ending(end.timestamp(), now)
                yield f"{self.authorities_path}: its last authority {told} on {end:%Y-%m-%d}; renew it"


def _ending(end: float, now: float) -> str:
    return "expired" if end <= now else "expires"


def read_trust(ca: Path | None = None, client_cert: Path | None = None, client_key: Path | None = None) -> Trust:
    """Read the files of one service: authorities instead of the system's, and the gateway's own certificate, whose
    key may stand in the same file. Raises TrustError for unusable ones."""
    faults: list[str] = []
    authorities, chain, key = _read_files(ca, client_cert, client_key or client_cert, faults)
    if faults:
        raise TrustError("\n".join(faults))
    system = () if authorities else _system_version()
    trust = Trust(authorities, chain, key, system, client_cert, ca)
    _show(SSL.Context(SSL.TLS_CLIENT_METHOD), trust)
    return trust


def file_faults(ca: Path | None, client_cert: Path | None, client_key: Path | None) -> list[str]:
    """What is wrong with those files of a service that are there, a line each, where others of them are not."""
    faults: list[str] = []
    _read_files(ca, client_cert, client_key, faults)
    return faults


def _read_files(
    ca: Path | None, client_cert: Path | None, client_key: Path | None, faults: list[str]
) -> tuple[bytes, bytes, bytes]:
    """The contents of each, b"" for none; `faults` gets what is wrong with each, and with the last two together."""
    authorities = chain = key = b""
    leaf = loaded = None
    try:
        if ca is not None:
            authorities = _read(ca)
            _parse_chain(ca, authorities, "write PEM certificates of the authorities to trust")
    except TrustError as error:
        faults.append(str(error))
    try:
        if client_cert is not None:
            chain = _read(client_cert)
            leaf = _parse_chain(client_cert, chain, "write the PEM certificate that the gateway shows")[0]
    except TrustError as error:
        faults.append(str(error))
    try:
        if client_key is not None and (client_key != client_cert or leaf is not None):
            key = _read(client_key)
            loaded = _parse_key(client_key, key, client_cert)
    except TrustError as error:
        faults.append(str(error))
    if leaf is not None and loaded is not None and public_key_der(leaf) != public_key_der(loaded):
        faults.append(f"{client_cert}: the private key in {client_key} does not match its first certificate")
    return authorities, chain, key


def make_context(trust: Trust, identity: PeerIdentity, protocol: bytes = _PROTOCOL) -> SSL.Context:
    """A context for connections to services with this identity: TLS 1.2 or newer, and this protocol by ALPN
    (RFC 7301), which a service that knows no ALPN ignores; b"" for none.

    `trust` is one that `read_trust` has made, so that nothing in it is refused here.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    # Frees both record buffers (34 KiB) of a connection that is idle.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # The sessions are kept here, by address, and bounded.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_TLS12_SUITES)
    if protocol:
        context.set_alpn_protos([protocol])
    context.set_verify(SSL.VERIFY_PEER, identity.judge)
    store = context.get_cert_store()
    assert store is not None, "a context has a store from its beginning"
    # A certificate that the operator names is trusted as it is, an intermediate one too.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if trust.authorities:
        for authority in certificates_in(trust.authorities):
            store.add_cert(crypto.X509.from_cryptography(authority))
    else:
        context.set_default_verify_paths()
    _show(context, trust)
    return context


def _show(context: SSL.Context, trust: Trust) -> None:
    """Let connections show the gateway's own certificate, where there is one."""
    if not trust.chain:
        return
    leaf, *issuers = certificates_in(trust.chain)
    try:
        use_pair(context, leaf, private_key_in(trust.key, ""))
    except ValueError as error:
        raise TrustError(f"{trust.certificate_path}: {error}") from None
    for issuer in issuers:
        context.add_extra_chain_cert(issuer)


def _read(path: Path) -> bytes:
    try:
        return read_pem(path, _LARGEST)
    except OSError as error:
        raise TrustError(f"{path}: {(error.strerror or str(error)).lower()}; let the gateway read it") from None
    except PemError as error:
        raise TrustError(f"{path}: {error}") from None


def _parse_chain(path: Path, data: bytes, wanted: str) -> tuple[x509.Certificate, ...]:
    try:
        return certificates_in(data, wanted)
    except PemError as error:
        raise TrustError(f"{path}: {error}") from None


def _parse_key(path: Path, data: bytes, chain_path: Path | None) -> PrivateKeyTypes:
    try:
        return private_key_in(data, f"write the PEM key of {chain_path or 'client_cert'}")
    except PemError as error:
        raise TrustError(f"{path}: {error}") from None


def _system_version() -> tuple[object, ...]:
    """What changes when the system's authorities are installed anew."""
    paths = ssl.get_default_verify_paths()
    return tuple(_stamp(path) for path in (paths.cafile, paths.capath) if path)


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, status.st_mtime_ns, status.st_size
