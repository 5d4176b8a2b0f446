"""A shortage of file descriptors, and the setting to raise."""

from __future__ import annotations

import errno
import resource


def shortage(error: object) -> str:
    """Which limit to raise if an OSError, or Twisted's `ConnectError` of one, was caused by a lack of descriptors;
    else ""."""
    number = getattr(error, "errno", None) or getattr(error, "osError", None)
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"all {limit} file descriptors of this process are in use; raise LimitNOFILE of its unit (ulimit -n)"
    if number == errno.ENFILE:
        return "all file descriptors of this system are in use; raise fs.file-max (sysctl)"
    return ""
