"""The tool `koder-gateway version`: the version, and with --json those of what it is built on."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from .version import VERSION

# The packages whose versions a report of a fault needs.
_BUILT_ON: Final = ("Twisted", "uvloop", "httptools", "cryptography", "pyOpenSSL", "hpack")


def show_version(*, as_json: bool) -> int:
    """Print the version; returns the exit code."""
    if not as_json:
        print(f"koder-gateway {VERSION}")
        return 0
    from cryptography.hazmat.backends.openssl import backend

    from .tls.lean_connection import LEAN

    packages = {name: _version_of(name) for name in _BUILT_ON}
    document = {
        "version": VERSION,
        "python": platform.python_version(),
        "openssl": backend.openssl_version_text(),
        "tls_connections": "lean" if LEAN else "pyOpenSSL's",
        "packages": packages,
    }
    print(json.dumps(document, indent=2))
    return 0


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
