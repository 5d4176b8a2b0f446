"""What every part of the test needs: expectations, commands and the names of the package."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

NAME = "koder-gateway"
PATIENCE = 120.0  # seconds until anything that should happen has failed to


class Failed(Exception):
    """Something about the package is not as it should be."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def say(what: str) -> None:
    print(f"test-deb: {what}", flush=True)


def run(*words: object, env: Mapping[str, str] | None = None) -> str:
    """What the command wrote; Failed with all of it if it does not exit with 0."""
    done = subprocess.run([*map(str, words)], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    expect(done.returncode == 0, f"{words[0]} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout
