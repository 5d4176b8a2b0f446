"""The phases of one HTTP/1.1 connection; `channel` draws them."""

from __future__ import annotations

from typing import Final

IDLE, HEAD, BODY, BUSY, TUNNEL, LINGER, CLOSING, GONE = range(8)

# In which a further request may be read; in which something may still be written; in which others
# take what comes; in which nothing is read any more.
READY: Final = frozenset((IDLE, HEAD, BUSY))
WRITING: Final = frozenset((IDLE, HEAD, BODY, BUSY, TUNNEL))
RAW: Final = frozenset((BODY, TUNNEL))
FORGETFUL: Final = frozenset((LINGER, CLOSING, GONE))
