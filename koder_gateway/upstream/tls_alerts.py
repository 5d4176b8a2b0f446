"""Why TLS with a service has failed, in words that say what to change."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from ..tls_bio.openssl_errors import openssl_words

# The end by close_notify.
GOODBYE: Final = ""
_HANDSHAKE, _ALERT = 0x16, 0x15
# By a part of an alert's name (RFC 8446 section 6.2): what the operator can do about it.
_ADVICE: Final = (
    ("protocol version", "it speaks no TLS 1.2 or newer"),
    (
        "handshake failure",
        "it has no cipher in common with the gateway, no certificate to show, or asks for a client_cert",
    ),
    ("no application protocol", "it speaks no HTTP/1.1 on this port"),
    ("unrecognized name", "it does not know this name; correct url or server_name"),
    ("certificate required", "it asks for a certificate of the gateway's; set client_cert and client_key"),
    ("unknown ca", "it does not trust who issued client_cert"),
    ("certificate", "it refuses client_cert"),
)


def openssl_says(error: SSL.Error) -> str:
    """The first of OpenSSL's own words about an error; "" where it has none."""
    words = openssl_words(error)
    if words:
        return words[0]
    return str(error.args[-1]) if error.args else ""


def handshake_fault(data: bytes, error: SSL.Error) -> str:
    """Why a handshake has failed; `data` are the bytes at which it did."""
    if data and data[0] not in (_HANDSHAKE, _ALERT):
        spoken = "plain HTTP" if data.startswith(b"HTTP/") else "something else"
        return f"it responds with {spoken}, not TLS; write http://, or the port where it speaks TLS"
    words = openssl_says(error)
    if "unsupported protocol" in words:
        return "no TLS handshake: it speaks no TLS 1.2 or newer"
    return f"no TLS handshake: {_advised(words)}"


def record_fault(words: str) -> str:
    """Why TLS has ended after the handshake, from OpenSSL's words for it."""
    return f"TLS failed: {_advised(words)}"


def _advised(words: str) -> str:
    if " alert " in words:
        for name, advice in _ADVICE:
            if name in words:
                return f"{advice} ({words})"
    return words or "OpenSSL gives no reason"
