"""A Containerfile as its instructions."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One, with its lines joined; `name` is in capital letters."""

    name: str
    text: str

    @property
    def words(self) -> list[str] | None:
        """Those of the exec form, a JSON list; None for the shell form."""
        start = self.text.find("[")
        if start < 0:
            return None
        try:
            return [str(word) for word in json.loads(self.text[start:])]
        except ValueError:
            return None


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Instruction] = field(default_factory=list)

    def only(self, name: str) -> Instruction:
        """The only instruction of this name."""
        (found,) = [step for step in self.steps if step.name == name]
        return found


def read_stages(path: Path) -> list[Stage]:
    """The stages of a file."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(base, alias))
        elif name and stages:
            stages[-1].steps.append(Instruction(name, rest.strip()))
    return stages


def assignments(text: str) -> dict[str, str]:
    """What ENV or LABEL sets."""
    return {word.partition("=")[0]: word.partition("=")[2] for word in shlex.split(text)}
