"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("koder-gateway")
except PackageNotFoundError:  # run from a tree that is not installed
    VERSION = "0"
