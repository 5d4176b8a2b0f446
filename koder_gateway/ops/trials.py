"""Whether files can be made in a folder, by trying: to root all look writable, those of /proc and /sys too."""

from __future__ import annotations

import os
import tempfile


def takes_files(folder: str | os.PathLike[str]) -> bool:
    """Whether a file can be made in a folder. None is left there: one without a name where the file system has such,
    else one that is removed at once."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        tempfile.TemporaryFile(dir=folder, prefix=".koder-gateway-").close()
    except OSError:
        return False
    return True
