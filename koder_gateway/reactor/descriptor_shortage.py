"""A shortage of file descriptors, in the words of the setting that mends it."""

from __future__ import annotations

import errno
import resource


def shortage(error: object) -> str:
    """What to raise when an OSError, or Twisted's `ConnectError` of one, came for want of descriptors; else ""."""
    number = getattr(error, "errno", None) or getattr(error, "osError", None)
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"all {limit} file descriptors of this process are in use; raise LimitNOFILE of its unit (ulimit -n)"
    if number == errno.ENFILE:
        return "all file descriptors of this system are in use; raise fs.file-max (sysctl)"
    return ""
