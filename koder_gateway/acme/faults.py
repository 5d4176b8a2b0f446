"""What can go wrong with an order: whose fault it is, in the authority's own words, and what the operator can do.

One function maps what an authority says to a `Fault` (RFC 8555 section 6.7), and what may be said of the rest is here
too.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final, Literal

# Characters that are kept of what an authority says.
LONGEST_WORDS: Final = 500
_ERROR: Final = "urn:ietf:params:acme:error:"
# Whatever it asks for, it is asked again after a day, in seconds.
LONGEST_PATIENCE: Final = 86400.0

# The words for a limit on the names of one order, and for when it ends.
_ONE_SET: Final = re.compile(r"exact set of (?:identifiers|domains)")
_UNTIL: Final = re.compile(
    r"retry after ([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2}) ?(?:UTC|Z)", re.I
)

Scope = Literal["name", "authority", "account", "local"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an order has failed. `result` is one of `messages.RESULTS`. `words` are the authority's own, or ours, and
    `advice` says what to do.

    The `scope` says what waits: this name, all orders at this authority, all orders until the account or the
    configuration is put right, or until this machine is. `after` is what the authority asks for, in seconds.
    """

    result: str
    scope: Scope
    words: str
    advice: str
    after: float | None = None
    code: str = ""

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.words}; {self.advice}" if self.advice else self.words


class OrderError(Exception):
    """An order has failed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.words)
        self.fault = fault


_WAIT: Final = "wait: it is tried again"
_ADVICE: Final = {
    "caa": "have the domain's owner allow this authority in its CAA record, or remove that",
    "connection": "let the authority reach the gateway at each address of the name, on the challenge's port",
    "dns": "have the domain's owner mend its DNS, so that the name leads to the gateway from everywhere",
    "dnssec": "have the domain's owner mend its DNSSEC",
    "incorrectResponse": "let each address of the name lead to this gateway: something else answers the challenge",
    "unauthorized": "let each address of the name lead to this gateway: something else answers the challenge",
    "tls": 'let nothing else end TLS before the gateway, or choose acme.challenge = "http-01"',
    "rejectedIdentifier": "remove the domain from its tenant, or put a certificate of another authority into "
    "tls.certificates",
    "unsupportedIdentifier": "remove the domain from its tenant",
    "externalAccountRequired": "write acme.eab with what the authority shows in your account there",
    "invalidContact": "correct acme.contact",
    "invalidEmail": "correct acme.contact",
    "unsupportedContact": "correct acme.contact",
    "invalidProfile": "correct acme.profile, or leave it out",
    "badCSR": "choose the other kind of acme.keys",
    "badPublicKey": "choose the other kind of acme.keys",
    "badSignatureAlgorithm": "choose another acme.directory: this one takes no ES256",
    "serverInternal": _WAIT,
    "rateLimited": "wait: it is tried again when the authority allows",
}
# Faults of the account, or of the configuration: no other name would fare better.
_OF_ACCOUNT: Final = frozenset(
    (
        "externalAccountRequired",
        "invalidContact",
        "invalidEmail",
        "unsupportedContact",
        "userActionRequired",
        "accountDoesNotExist",
        "invalidProfile",
        "badSignatureAlgorithm",
        "badCSR",
        "badPublicKey",
    )
)
_OF_AUTHORITY: Final = frozenset(("serverInternal", "badNonce"))


def plain(text: str, longest: int = LONGEST_WORDS) -> str:
    """Somebody else's words, in one line without what a terminal could obey."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * longest]).split())
    return words if len(words) <= longest else f"{words[: longest - 3]}..."


def refused(
    code: str, words: str, *, status: int, name: str = "", after: float | None = None, link: str = ""
) -> Fault:
    """The fault that an authority tells by a problem document. `code` is its type, `link` the page that it wants the
    operator to visit."""
    code = code.removeprefix(_ERROR)
    # The type is what its documentation is searched for.
    known = code if code.isalnum() else ""
    said = plain(f"{words} ({known})" if words and known else words or code or f"status {status}")
    if code == "rateLimited" or status == 429:
        scope: Scope = "name" if name and _limits_one(said, name) else "authority"
        return Fault("limited", scope, said, _ADVICE["rateLimited"], after, code or "rateLimited")
    if code == "userActionRequired":
        where = f" at {plain(link, 200)}" if link.startswith("https://") else ""
        return Fault("rejected", "account", said, f"read and agree to the new terms{where}", after, code)
    if code in _OF_ACCOUNT:
        return Fault("rejected", "account", said, _ADVICE.get(code, "make the account anew"), after, code)
    if code in _OF_AUTHORITY or status >= 500:
        return Fault("failed", "authority", said, _ADVICE["serverInternal"], after, code)
    if not name:
        return Fault("rejected", "account", said, "correct the [acme] section", after, code)
    advice = _ADVICE.get(code, "see the authority's documentation; it is tried again")
    return Fault("rejected", "name", said, advice, after, code)


def _limits_one(words: str, name: str) -> bool:
    """Whether a limit is one on this name, or on the domain that it is part of: then others may be ordered. RFC 8555
    section 6.6 leaves that to the words; those of Let's Encrypt name the domain, or the set of names that is
    ordered. Where they speak of the account, of an address or of nothing, all orders wait."""
    text = words.lower()
    if _ONE_SET.search(text):
        return True
    labels = name.split(".")
    return any(".".join(labels[index:]) in text for index in range(len(labels) - 1))


def told_after(words: str, now: float) -> float | None:
    """In how many seconds the authority wants to be asked again, by its words alone; None where they say nothing.
    Let's Encrypt has "retry after 2025-02-01 11:05:21 UTC" there."""
    match = _UNTIL.search(words)
    if match is None:
        return None
    try:
        until = datetime.datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00").timestamp()
    except ValueError:
        return None
    return max(0.0, until - now)


def unreachable(reason: str, after: float | None = None, status: int = 0) -> Fault:
    """The authority cannot be asked, or does not answer as one; `status` is what it answers."""
    advice = _WAIT if status >= 500 else "see that acme.directory is right and can be reached"
    return Fault("failed", "authority", plain(reason), advice, after)


def broken(reason: str, advice: str) -> Fault:
    """What an order needs cannot be kept."""
    return Fault("broken", "local", plain(reason), advice)


def abandoned() -> Fault:
    """The name is not wanted any more, or another gateway orders now."""
    return Fault("abandoned", "name", "the order was given up", "")
