"""Characters that look like one that is meant, or like nothing: as word processors, chats and web pages give them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Spaces that are not plain, marks without width, and quotation marks of word processors.
_SPACES: Final = "\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WIDTHLESS: Final = "\u200b\u200c\u200d\u2060\ufeff"
_MEANT: Final = dict.fromkeys("\u201c\u201d\u201e", '"') | dict.fromkeys("\u2018\u2019", "'")
LOOKALIKE: Final = re.compile(f"[{_SPACES}{_WIDTHLESS}{''.join(_MEANT)}]")
_BLANK: Final = re.compile(f"[{_SPACES}{_WIDTHLESS}]")


def called(character: str) -> str:
    """What such a character is called, and its number."""
    return f"{unicodedata.name(character, 'a character').lower()} (U+{ord(character):04X})"


def instead(character: str) -> str:
    """What to do about one outside strings."""
    return "remove it" if character in _WIDTHLESS else f"type {_MEANT.get(character, 'a plain space')} there"


def hidden_in(text: str) -> str:
    """What a value has in it that nobody sees, in the middle of a line; "" for nothing of the kind."""
    match = _BLANK.search(text)
    if match is not None:
        return f"has {called(match[0])} in it; remove it"
    return "begins or ends with a space; remove it" if text != text.strip(" ") and text.strip() else ""
