"""Faults of endpoint strings, in lines that name the string."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..tls.certificates import CertificateError


class EndpointError(Exception):
    """An endpoint string that cannot be served; the text says so in one line for each fault."""


@contextmanager
def as_endpoint_error(text: str) -> Iterator[None]:
    """Turn an exception that was raised for an endpoint string into an EndpointError."""
    try:
        yield
    except CertificateError as error:
        raise EndpointError("\n".join(f'endpoint "{text}": {fault}' for fault in error.faults)) from None
    # What the parsers of Twisted and its plugins raise for wrong strings.
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise EndpointError(f'endpoint "{text}": {_clue(error)}') from None


def _clue(error: Exception) -> str:
    """What is wrong with an endpoint string, in one line, from what its parser raised."""
    text = " ".join(str(error).split()) or "cannot be read"
    if isinstance(error, OSError):
        return f"{text}; name a file that the gateway may read"
    if isinstance(error, LookupError):
        missing = "of that index" if isinstance(error, IndexError) else f"called {text}"
        return f"no descriptor {missing} was inherited; start the gateway by its socket unit, or name another"
    if "Unknown endpoint type" in text:
        return "no such kind of endpoint; write ssl:443, tcp:80, unix:PATH or another of Twisted's"
    if isinstance(error, ValueError) and "invalid literal" not in text:
        return text
    return f"wrong arguments for this kind of endpoint ({text}); write for example tcp:80:interface=127.0.0.1"
