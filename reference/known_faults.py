"""The table of docs/security.md that has the faults of other packages."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def known_faults(path: Path) -> str:
    """A table with a line for each fault of the file (debian/known-faults.toml)."""
    faults: list[dict[str, Any]] = tomllib.loads(path.read_text())["fault"]
    lines = ["| package | fault | not in | what it is | why the gateway is safe |", "|---|---|---|---|---|"]
    for fault in faults:
        reason = fault["guard"] if fault.get("reached", True) else f"*not reached*: {fault['guard']}"
        lines.append(f"| {fault['package']} | {fault['id']} | {fault['fixed']} | {fault['what']} | {reason} |")
    return "\n".join(lines) + "\n"
