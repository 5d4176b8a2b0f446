"""Files that only their owner reads, and that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def write_private(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put in place what `write` writes, readable by its owner only from its first byte. Raises OSError, and what
    `write` raises; then everything is as before."""
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
