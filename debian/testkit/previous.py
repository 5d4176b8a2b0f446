"""The version before: the same package, which says that it is older."""

from __future__ import annotations

import re
from pathlib import Path

from .saying import NAME, expect, run

VERSION = "0.0.1"


def make_previous(package: Path, folder: Path) -> Path:
    """A package in this folder that `package` is an upgrade of, with the same files but for the version."""
    tree = folder / "previous"
    run("dpkg-deb", "--raw-extract", package, tree)
    metadata = [path for path in tree.rglob("METADATA") if path.parent.name.startswith("koder_gateway-")]
    for path in (tree / "DEBIAN/control", *metadata):
        text, replaced = re.subn(
            r"^Version: .*$", f"Version: {VERSION}", path.read_text(), count=1, flags=re.MULTILINE
        )
        expect(replaced == 1, f"{path} has no version")
        path.write_text(text)
    made = folder / f"{NAME}_{VERSION}.deb"
    run("dpkg-deb", "--root-owner-group", "--build", tree, made)
    return made
