"""uvloop's transports under Twisted's interfaces, and the choice of the reactor."""

from __future__ import annotations

import importlib.util
import sys


def available() -> bool:
    """Whether uvloop is installed."""
    try:
        return importlib.util.find_spec("uvloop") is not None
    except ModuleNotFoundError:
        return False


def install_by_default() -> bool:
    """Install the uvloop reactor, unless a reactor has been chosen or uvloop is missing; true if installed."""
    if "twisted.internet.reactor" in sys.modules or not available():
        return False
    from koder_gateway.transports.reactor import install

    install()
    return True
