"""What OpenSSL says about an error, in its own words."""

from __future__ import annotations


def openssl_words(error: Exception) -> list[str]:
    """The reasons in the stack that pyOpenSSL puts into its errors, the first one first; [] where it has none. Every
    entry is (library, function, reason), and a reason may be empty."""
    stack = error.args[0] if error.args else None
    if not isinstance(stack, list):
        return []
    return [str(entry[-1]) for entry in stack if isinstance(entry, tuple) and entry]


def refusal_of(error: Exception) -> str:
    """Why OpenSSL refuses a certificate or a key, as it stands in the middle of a line."""
    words = openssl_words(error) or [" ".join(str(error).split())]
    return words[-1] or "no reason given"
