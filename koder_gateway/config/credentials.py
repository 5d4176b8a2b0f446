"""Files that systemd passes to its service (LoadCredential= of systemd.exec(5)), named `credential:NAME`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .faults import ReadError, shown

PREFIX: Final = "credential:"
# Where systemd keeps those of the packaged unit: for tools that are run beside it.
_OF_THE_UNIT: Final = "/run/credentials/koder-gateway.service"
# What systemd accepts and no path can be made of.
_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}")


def credentials_folder(environ: Mapping[str, str], of_the_unit: str = _OF_THE_UNIT) -> Path | None:
    """systemd's CREDENTIALS_DIRECTORY, else the folder of the running unit; None if there is neither."""
    given = environ.get("CREDENTIALS_DIRECTORY", "")
    if os.path.isabs(given):
        return Path(given)
    return Path(of_the_unit) if os.path.isdir(of_the_unit) else None


def credential_path(text: str, folder: Path | None, whole: bool = False) -> Path:
    """The file of `credential:NAME`, or with `whole` the folder of them all, which is `credential:` alone. Raises
    ReadError."""
    name = text.removeprefix(PREFIX)
    if whole and name:
        raise ReadError.because(f'{shown(text)} is a file; write "{PREFIX}" for the folder of all credentials')
    if not whole and not _NAME.fullmatch(name):
        raise ReadError.because(
            f"{shown(text)} names no credential; write letters, digits, dots, hyphens and underscores after it"
        )
    if folder is None:
        wanted = f"LoadCredential={name or 'NAME'}:FILE"
        raise ReadError.because(f"{shown(text)}: systemd passes no credentials; write {wanted} in the unit")
    return folder / name
