"""Where the package is installed: a Debian of its own, or a folder in which it is only unpacked."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .saying import NAME, expect, run, say

STATE = f"var/lib/{NAME}"
# What dpkg, apt and adduser keep as their own books.
BOOKS = (
    "dev", "proc", "sys", "tmp", "root", "etc/.pwd.lock", "etc/group-", "etc/gshadow-", "etc/passwd-",
    "etc/shadow-", "etc/subuid-", "etc/subgid-", "run", "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log",
)  # fmt: skip

# Stands in for the program that the package asks systemd by.
_INVOKE = """#!/bin/sh
echo "$*" >>/run/asked
[ "$1" != restart ] || while [ ! -e /run/asked.done ]; do sleep 0.05; done
"""


class Debian:
    """A Debian of its own, in which the package is really installed. Needs root."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root = root
        self._package = package
        self._before: frozenset[str] = frozenset()

    def install(self) -> None:
        """Make the tree, and install the package there twice."""
        fields = subprocess.check_output(["dpkg-deb", "--field", self._package, "Depends"], text=True)
        needs = {entry.split("|")[0].split("(")[0].strip() for entry in fields.split(",")}
        suite, mirror = archive()
        say(f"debootstrap {suite}")
        run(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(sorted(needs))}",
            suite,
            self.root,
            mirror,
        )
        self._before = self._everything()
        say("install, and again over itself")
        for _ in range(2):
            self.put(self._package)

    def put(self, package: Path) -> None:
        """Install this package."""
        shutil.copy(package, self.root / "tmp" / "package.deb")
        self._inside("dpkg", "--install", "/tmp/package.deb")  # noqa: S108 (in a tree of its own)

    def command(self, words: Sequence[str]) -> list[str]:
        return ["chroot", f"--userspec={NAME}:{NAME}", str(self.root), *words]

    def path(self, inside: str) -> str:
        return f"/{inside}"

    def state(self) -> None:
        """Makes the state folder, as StateDirectory= does."""
        folder = self.root / STATE
        folder.mkdir(mode=0o700)
        user, group = self._inside("id", "-u", NAME), self._inside("id", "-g", NAME)
        os.chown(folder, int(user), int(group))

    def version(self) -> str:
        """That of the installed gateway, as it says itself."""
        return self._inside("koder-gateway", "version").split()[1]

    @contextlib.contextmanager
    def systemd(self) -> Iterator[Path]:
        """As if systemd ran there. What the package asks of it is a line in the file that this gives; `restart` waits
        until there is a file of that name and `.done`."""
        running, asked = self.root / "run/systemd/system", self.root / "run/asked"
        invoke = self.root / "usr/bin/deb-systemd-invoke"
        kept = invoke.with_suffix(".kept")
        running.mkdir(parents=True)
        invoke.rename(kept)
        invoke.write_text(_INVOKE)
        invoke.chmod(0o755)
        try:
            yield asked
        finally:
            kept.rename(invoke)
            running.rmdir()

    def remove(self) -> None:
        """Remove the package, which stops what runs, and keeps what is the operator's."""
        say("remove")
        with self.systemd() as asked:
            asked.unlink(missing_ok=True)
            self._inside("dpkg", "--remove", NAME)
            stopped = asked.read_text().splitlines()
        sockets = "stop koder-gateway.socket koder-gateway-http.socket"
        expect(stopped == [sockets, "stop koder-gateway.service"], f"the removal asked systemd: {stopped}")
        expect(not (self.root / "usr/lib" / NAME).exists(), "remove left the program behind")
        for kept in (f"etc/{NAME}/{NAME}.toml", f"etc/{NAME}/tenants.toml", STATE):
            expect((self.root / kept).exists(), f"remove took {kept}")
        expect(NAME in (self.root / "etc/passwd").read_text(), "remove took the user, who owns the state")

    def purge(self) -> None:
        say("purge")
        self._inside("dpkg", "--purge", NAME)
        left = self._everything() - self._before
        expect(not left, f"purge left behind: {', '.join(sorted(left))}")

    def _everything(self) -> frozenset[str]:
        """Every path of the tree and every account, but the books of the tools."""
        found = set()
        for folder, folders, files in os.walk(self.root):
            inside = os.path.relpath(folder, self.root)
            paths = [os.path.normpath(os.path.join(inside, name)) for name in (*folders, *files)]
            found.update(path for path in paths if path not in BOOKS)
            folders[:] = [name for name in folders if os.path.normpath(os.path.join(inside, name)) not in BOOKS]
        for accounts in ("etc/passwd", "etc/group"):
            lines = (self.root / accounts).read_text().splitlines()
            found.update(f"{accounts}: {line.split(':')[0]}" for line in lines)
        return frozenset(found)

    def _inside(self, *words: str) -> str:
        quiet = {
            "DEBIAN_FRONTEND": "noninteractive",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
        }
        return run("chroot", self.root, *words, env=quiet)


class Unpacked:
    """The package's files, run where they lie as the user that we are. Needs this machine's own python3."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root = root
        self._package = package

    def install(self) -> None:
        say("unpack: the maintainer scripts, the user and the purge are not tested without root and chroot")
        run("dpkg-deb", "--extract", self._package, self.root)
        (self.root / "usr/bin/python3").symlink_to("/usr/bin/python3")

    def command(self, words: Sequence[str]) -> list[str]:
        moved = [str(self.root) + word if word.startswith((f"/etc/{NAME}", "/usr/")) else word for word in words]
        # The scripts name their interpreter by the path that they were installed under.
        return [str(self.root / "usr/lib" / NAME / "bin/python"), *moved]

    def path(self, inside: str) -> str:
        return str(self.root / inside)

    def state(self) -> None:
        (self.root / STATE).mkdir(mode=0o700, parents=True)

    def remove(self) -> None:
        """Nothing was installed, nothing can be removed."""

    def purge(self) -> None:
        """Nothing was installed, nothing has to go."""


def archive() -> tuple[str, str]:
    """The suite and the mirror that this machine's own apt reads, or debootstrap's default for an unnamed one."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    targets = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(CODENAME) $(COMPONENT) $(REPO_URI)",
            "Created-By: Packages",
        ],
        text=True,
        stdout=subprocess.PIPE,
    ).stdout
    for target in targets.splitlines():
        codename, component, mirror = target.split(" ", 2)
        if (codename, component) == (suite, "main"):
            return suite, mirror
    return suite, ""


def can_chroot() -> bool:
    return os.geteuid() == 0 and subprocess.run(["chroot", "/", "true"], stderr=subprocess.DEVNULL).returncode == 0
