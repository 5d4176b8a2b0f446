"""Where the keys of a configuration come from, for the lines of reports about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .faults import line


@dataclass(frozen=True, slots=True)
class Origins:
    """`file` is what messages call the file, and `variables` are the environment variables that have set keys, as in
    `listen.admin_port` and `services.identity.url`."""

    file: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def line(self, at: str, message: str) -> str:
        """The line of a report about the key there: it names the file, or the variable that has set the key."""
        at = at.removeprefix(".")
        key = set_part(at, self.variables)
        return told(self.variables[key], at[len(key) :], message) if key else line(self.file, at, message)


def set_part(at: str, variables: Mapping[str, str]) -> str:
    """The key, of this place or of what it is in, that a variable has set; "" for none."""
    while at and at not in variables:
        at = at[: max(at.rfind("."), at.rfind("["), 0)]
    return at


def told(variable: str, at: str, message: str) -> str:
    """The line of a report about a variable."""
    return f"environment: {variable}{at}: {message}"
