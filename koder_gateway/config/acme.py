"""`[acme]`: the authority that issues certificates for tenants' domains, and how they are ordered."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

import base64
import binascii
import importlib.util
import ipaddress
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .faults import Located, ReadError, reason, shown
from .kinds import Kind, Where, choice, listing, matching, optional, optional_text, parsed, whole
from .shapes import SOME_TEXT, pattern
from .tables import made, setting
from .values import BOOLEAN, DOMAIN, FILE, is_host

TLS_ALPN: Final = "tls-alpn-01"
HTTP: Final = "http-01"
_EXAMPLE: Final = 'write one as in "https://acme-v02.api.letsencrypt.org/directory"'
_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9.-]{3,253})")
_KEY_ID: Final = re.compile(r"[\x21-\x7e]{1,512}")
_PROFILE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RESOLVER: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
# A file with a key is one short line.
_LONGEST: Final = 4096
# The keys that encrypt what the store has are those of AES-256.
_STORAGE_KEY: Final = 32
_MAX_RATE: Final = 100_000
_NEEDED: Final = ("acme", "josepy", "dns")
_MAKE_KEY: Final = "write a file that is made with: openssl rand -hex 32"
_MISSING: Final = "needs packages that are not installed; install koder-gateway[acme]"


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret, and the file that has it. `exposed`: every user of this machine can read it."""

    path: Path = field(compare=False)
    value: bytes = field(repr=False)
    exposed: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """An account at the authority's own shop, to which the ACME account is bound (RFC 8555 section 7.3.4). The value
    of `key` is that of the MAC key."""

    key_id: str
    key: SecretFile


def acme_packages_fault() -> str | None:
    """What is said where the packages of the extra are not there; None where they are. It imports none of them."""
    for name in _NEEDED:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            return _MISSING
    return None


def _parse_directory(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"is not the URL of an ACME directory; {_EXAMPLE}")
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(f"is not the URL of an ACME directory; {_EXAMPLE}") from None
    # RFC 8555 section 6.1: it is always HTTPS.
    if parts.scheme.lower() != "https":
        raise ValueError(f"is not https, which ACME needs; {_EXAMPLE}")
    if "@" in parts.netloc:
        raise ValueError("has a user or a password in it; accounts with an authority are bound by eab")
    if not host or port == 0 or not is_host(host, bracketed="[" in parts.netloc):
        raise ValueError(f"has no usable host; {_EXAMPLE}")
    if "?" in text or "#" in text:
        raise ValueError(f"has a query or a fragment; {_EXAMPLE}")
    return f"https://{parts.netloc.lower().removesuffix(':')}{parts.path}"


def _contact_fault(text: str) -> str | None:
    if text.lower().startswith("mailto:"):
        return f"has a scheme; write the address alone, {shown(text[7:])}"
    match = _EMAIL.fullmatch(text)
    if match is None or not is_host(match[1], bracketed=False) or "." not in match[1]:
        return 'is not an e-mail address; write one as in "operations@example.com"'
    return None


def _read_name(value: object, where: Where) -> str:
    if isinstance(value, str) and value.startswith("*."):
        raise ReadError.because(
            f"{shown(value)} is a wildcard, which needs an entry in DNS; put its certificate into tls.certificates"
        )
    name = DOMAIN.read(value, where)
    wrong = "" if "." in name else "has one label only"
    wrong = wrong or ("has a _ in it" if "_" in name else "")
    if wrong:
        raise ReadError.because(f"{shown(value)} {wrong}, and no public authority issues for that; leave it out")
    return name


def _parse_resolver(text: str) -> tuple[str, int]:
    match = _RESOLVER.fullmatch(text)
    wrong = 'is not a name server; write its address, and its port if it is not 53, as in "192.0.2.1:5353"'
    if match is None:
        raise ValueError(wrong)
    port = int(match["port"] or 53)
    try:
        address = ipaddress.ip_address(match["six"] or match["four"])
    except ValueError:
        raise ValueError(wrong) from None
    if not 0 < port < 65536:
        raise ValueError(wrong)
    return str(address), port


def _one_line(value: object, where: Where, advice: str) -> tuple[Path, str, bool]:
    """The file, its only line, and whether everybody can read it."""
    path = FILE.read(value, where)
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
            exposed = bool(os.fstat(file.fileno()).st_mode & stat.S_IROTH)
        text = content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        fault = reason(error) if isinstance(error, OSError) else "is not text in ASCII"
        raise ReadError.because(f"{shown(value)}: {fault}; {advice}") from None
    # What is wrong is not shown: it may be a secret.
    if not text or len(content) > _LONGEST or len(text.split()) > 1:
        raise ReadError.because(f"{shown(value)}: has not one line with a key; {advice}")
    return path, text, exposed


def _read_mac_key(value: object, where: Where) -> SecretFile:
    advice = "write the MAC key there as the authority shows it, in base64url, in one line"
    path, text, exposed = _one_line(value, where, advice)
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        key = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ReadError.because(f"{shown(value)}: has no base64url; {advice}") from None
    return SecretFile(path, key, exposed)


def _read_storage_key(value: object, where: Where) -> SecretFile:
    advice = "make one with: openssl rand -hex 32"
    path, text, exposed = _one_line(value, where, advice)
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _STORAGE_KEY:
        raise ReadError.because(f"{shown(value)}: has not the 64 hexadecimal digits of a key; {advice}")
    return SecretFile(path, key, exposed)


def _key_id_fault(text: str) -> str | None:
    return None if _KEY_ID.fullmatch(text) else "is not a key id; write it as the authority shows it"


def _profile_fault(text: str) -> str | None:
    return None if _PROFILE.fullmatch(text) else 'is not the name of a profile; write one as in "shortlived"'


DIRECTORY: Final = parsed(
    "URL",
    _parse_directory,
    lambda value: f"{shown(value)} is not a string; {_EXAMPLE}",
    shape=pattern("[Hh][Tt]{2}[Pp][Ss]://.+"),
)
CONTACT: Final = matching("e-mail address", _contact_fault)
ACME_NAME: Final[Kind[str]] = Kind("domain", _read_name, shape=DOMAIN.shape)
RESOLVER: Final[Kind[tuple[str, int]]] = parsed("address", _parse_resolver)
MAC_KEY: Final[Kind[SecretFile]] = Kind("file", _read_mac_key, shape=SOME_TEXT, located=True)
STORAGE_KEY: Final[Kind[SecretFile]] = Kind("file", _read_storage_key, shape=SOME_TEXT, located=True)
KEY_ID: Final = matching("key id", _key_id_fault)
PROFILE: Final = matching("name", _profile_fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAccountKeys:
    """`eab`: both keys, or none."""

    key_id: str = setting(
        optional_text(KEY_ID),
        "",
        about='The id of the key that binds the account to one at the authority, where it wants that; `""`: none.',
    )
    key_file: SecretFile | None = setting(
        optional(MAC_KEY),
        "",
        about="A file with that key, in base64url, in one line.",
    )


def _bound(keys: ExternalAccountKeys) -> ExternalAccount | None:
    if keys.key_id and keys.key_file is not None:
        return ExternalAccount(keys.key_id, keys.key_file)
    if keys.key_id:
        raise ReadError([(".key_file", "is missing, and key_id needs it; write the file of the key")])
    if keys.key_file is not None:
        raise ReadError([(".key_id", "is missing, and key_file needs it; write the id that the authority shows")])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings:
    """[acme]: the authority, None for none, and how certificates are ordered there. `ca` None: the system's
    authorities. `rate` is the most orders in any hour. `resolver` is an address and a port, None for the system's.
    `check_port` 0: the port of the challenge, 443 or 80."""

    directory: str | None = setting(
        optional(DIRECTORY),
        "",
        about="The directory of the ACME authority that issues certificates for tenants' domains, "
        'as in `"https://acme-v02.api.letsencrypt.org/directory"`; `""`: none are ordered. Needs '
        "`koder-gateway[acme]`, which the Debian package has.",
    )
    contact: tuple[str, ...] = setting(
        listing(CONTACT),
        [],
        about="E-mail addresses at which the authority reaches the operator.",
    )
    accept_terms: bool = setting(
        BOOLEAN,
        False,
        about="Whether the operator agrees to the authority's terms of service, without which none issues.",
    )
    ca: Path | None = setting(
        optional(FILE),
        "",
        about="The authorities, in PEM, that may have issued the certificate of the directory's own server; "
        '`""`: the system\'s.',
    )
    challenge: str = setting(
        choice(TLS_ALPN, HTTP),
        TLS_ALPN,
        about='How the authority sees that a name leads here: `"tls-alpn-01"` on the HTTPS port, which must be 443 '
        'for it, or `"http-01"` on `listen.redirect_port`, which must be 80.',
    )
    eab: ExternalAccount | None = setting(
        made(ExternalAccountKeys, _bound),
        {},
        about="The account at the authority to which the gateway's is bound.",
    )
    names: tuple[str, ...] = setting(
        listing(ACME_NAME),
        [],
        about="Further names that get a certificate, such as the base domain. A wildcard needs DNS, and stays with "
        "`tls.certificates`.",
    )
    keys: str = setting(
        choice("ecdsa", "rsa"),
        "ecdsa",
        about="The kind of the certificates' keys: P-256, or RSA with 2048 bits for old clients.",
    )
    profile: str = setting(
        optional_text(PROFILE),
        "",
        about='The authority\'s profile of certificates, as in `"shortlived"` for six days; `""`: its default.',
    )
    rate: int = setting(
        whole(1, _MAX_RATE),
        50,
        about="The most orders in any hour, of all gateways that share the storage.",
    )
    resolver: tuple[str, int] | None = setting(
        optional(RESOLVER),
        "",
        about='The name server that is asked where a name leads to, as in `"192.0.2.1:53"`; `""`: the system\'s.',
    )
    check_port: int = setting(
        whole(0, 65535),
        0,
        about="The port at which the gateway checks for itself, before an order, that a name leads here; 0: that of "
        "the challenge, 443 or 80.",
    )
    storage: str = setting(
        choice("folder", "store"),
        "folder",
        about='Where certificates and the account are: `"folder"`, `acme` below `state.dir`, or `"store"`, the Redis '
        "of `limits_store.url`, for gateways that share no folder.",
    )
    storage_key_file: SecretFile | None = setting(
        optional(STORAGE_KEY),
        "",
        about='With `storage = "store"`: a file with the key, 64 hexadecimal digits, that encrypts private keys '
        "there. All gateways need the same.",
    )

    def warnings(self) -> Iterator[Located]:
        """A line for each secret that every user of this machine can read."""
        files = [("acme.storage_key_file", self.storage_key_file)]
        files += [("acme.eab.key_file", self.eab.key)] if self.eab else []
        for at, file in files:
            if file is not None and file.exposed:
                yield at, f"{shown(os.fspath(file.path))} can be read by every user; run chmod o-r"


def contradictions(document: dict[str, Any]) -> Iterator[Located]:
    """Keys of the section that do not belong together, and a storage that needs the shared store where there is none.
    Found in the document, so that a fault of one key hides none of these."""
    section = document.get("acme")
    if not isinstance(section, dict):
        return
    if not section.get("directory"):
        for key in ("contact", "eab", "names"):
            given = section.get(key)
            # A table whose keys are empty is none.
            if any(given.values()) if isinstance(given, dict) else given:
                yield f"acme.{key}", "has no effect without a directory; write that too, or leave it out"
    elif section.get("accept_terms", False) is False:
        yield "acme.accept_terms", "must be true: read the authority's terms of service, and write that"
    storage = section.get("storage", "folder")
    if storage == "folder" and section.get("storage_key_file"):
        yield "acme.storage_key_file", 'has no effect with storage = "folder"; leave it out'
    if storage == "store":
        if not section.get("storage_key_file"):
            yield "acme.storage_key_file", 'is missing, and storage = "store" needs it; ' + _MAKE_KEY
        store = document.get("limits_store")
        url = store.get("url", "memory:") if isinstance(store, dict) else "memory:"
        if url == "memory:":
            yield "acme.storage", '"store" needs a Redis that gateways share; write limits_store.url, or "folder"'


def acme_port_fault(section: AcmeSettings, redirect_port: bool) -> str | None:
    """Why the challenge cannot be answered on the ports that there are, None if it can. `redirect_port`: whether
    there is one, also by the command line."""
    if section.challenge != HTTP or redirect_port:
        return None
    return (
        f'"{HTTP}" is answered on the redirect port, and there is none; write listen.redirect_port, or "{TLS_ALPN}"'
    )
