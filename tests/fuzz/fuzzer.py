"""One target under atheris: `python -m tests.fuzz.fuzzer TARGET [flags of libFuzzer] [folders of inputs]`.

A process of its own: libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["koder_gateway"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until the flags say that it is enough, or an input fails."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
