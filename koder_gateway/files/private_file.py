"""Files that only their owner reads, and that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_private(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put in place what `write` writes, readable by its owner only from its first byte. Once this returns it
    outlives a sudden end of the system. Raises OSError, and what `write` raises; then everything is as before, but
    for a fault of the last step, the folder's own write: then the new content may be there."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600 by its contract
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _keep_names(path.parent)


def _keep_names(folder: Path) -> None:
    """Have the disk know of a rename in a folder: that is a write of its own (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have nothing to do for a folder, and say so.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
