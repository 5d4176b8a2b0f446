"""What keys mean is written in a small part of Markdown: `code`, **bold** text and [links](page.md#heading)."""

from __future__ import annotations

import re
from typing import Final

_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")


def plain(markdown: str) -> str:
    """The same without links, which lead nowhere outside of the documentation."""
    return _LINK.sub(r"\1", markdown)
