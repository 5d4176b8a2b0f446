"""`make reference`: write every file that has a part from the code."""

from __future__ import annotations

from .files import FILES, ROOT


def main() -> None:
    """Write the files whose text has changed, and say which."""
    for path, text in FILES.items():
        file = ROOT / path
        wanted = text()
        if not file.exists() or file.read_text() != wanted:
            file.write_text(wanted)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
