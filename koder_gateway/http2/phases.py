"""The phases of one HTTP/2 connection; `lifecycle` draws them."""

from __future__ import annotations

OPENING, OPEN, LINGER, CLOSING, GONE = range(5)
