"""Tests whether files can be created in a folder: for root all folders look writable, even those of /proc and
/sys."""

from __future__ import annotations

import os
import tempfile


def is_writable(folder: str | os.PathLike[str]) -> bool:
    """Whether a file can be created in a folder. Nothing is left there: the file has no name if the file system
    supports that, else it is removed at once."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        tempfile.TemporaryFile(dir=folder, prefix=".koder-gateway-").close()
    except OSError:
        return False
    return True
