"""Characters that look like another one, or are invisible, as word processors, chats and web pages insert them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Spaces other than the plain one, characters without width, and typographic quotation marks.
_SPACES: Final = "\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_WIDTHLESS: Final = "\u200b\u200c\u200d\u2060\ufeff"
_MEANT: Final = dict.fromkeys("\u201c\u201d\u201e", '"') | dict.fromkeys("\u2018\u2019", "'")
LOOKALIKE: Final = re.compile(f"[{_SPACES}{_WIDTHLESS}{''.join(_MEANT)}]")
_BLANK: Final = re.compile(f"[{_SPACES}{_WIDTHLESS}]")


def character_name(character: str) -> str:
    """The name of such a character, and its code point."""
    return f"{unicodedata.name(character, 'a character').lower()} (U+{ord(character):04X})"


def replacement_advice(character: str) -> str:
    """What to do about one outside a string."""
    return "remove it" if character in _WIDTHLESS else f"type {_MEANT.get(character, 'a plain space')} there"


def invisible_fault(text: str) -> str:
    """A message about invisible characters in a value; "" if there are none."""
    match = _BLANK.search(text)
    if match is not None:
        return f"has {character_name(match[0])} in it; remove it"
    return "begins or ends with a space; remove it" if text != text.strip(" ") and text.strip() else ""
