"""What is used of the inside of other packages stands in the table of assumptions, and has an upper bound."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import koder_gateway
from koder_gateway.service.dependencies import ASSUMPTIONS
from koder_gateway.tls.lean_connection import NEWEST

PACKAGE = Path(koder_gateway.__file__).parent
ROOT = PACKAGE.parent
LIBRARY = {"lib", "_lib"}
# Says whether a function is there; it is read with a default.
FLAGS = {"Cryptography_HAS_SSL_GET0_GROUP_NAME"}
# The bindings are one package's and what they bind is the other's.
TOGETHER = {"pyOpenSSL", "cryptography"}


def openssl_calls(source: str) -> Iterator[str]:
    """The functions and constants of OpenSSL's that a module takes from pyOpenSSL's private bindings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in LIBRARY:
            yield node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) > 1:
            of, name = node.args[:2]
            if isinstance(of, ast.Name) and of.id in LIBRARY and isinstance(name, ast.Constant):
                yield str(name.value)


def bounds() -> dict[str, tuple[str, str]]:
    """The lower and the upper bound of each package that `setup.cfg` asks for; "" for none."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    found = [re.fullmatch(r"([\w-]+)(?:\[\w+\])? >= ([\d.]+)(?:, < ([\d.]+))?", line) for line in lines if line]
    return {match[1]: (match[2], match[3] or "") for match in found if match is not None}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def test_every_call_of_openssl_is_in_the_table() -> None:
    assert set(openssl_calls("lib.A(1)\ngetattr(_lib, 'B', None)\nother.C")) == {"A", "B"}
    told = {call for each in ASSUMPTIONS for call in each.calls}
    used = {call for path in PACKAGE.rglob("*.py") for call in openssl_calls(path.read_text())}
    assert used - told - FLAGS == set()


def test_the_bindings_are_taken_at_known_places_only() -> None:
    taking = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"""SSL\._lib\b|getattr\(SSL, ["']_lib["']""", path.read_text())
    }
    assert taking == {"tls_bio/records.py", "tls/client_hello.py", "tls/sni_callback.py"}


def test_every_package_of_the_table_has_an_upper_bound() -> None:
    asked = bounds()
    for package in {each.package for each in ASSUMPTIONS} | TOGETHER:
        lower, upper = asked[package]
        assert upper, f"setup.cfg: {package} >= {lower} has no upper bound, and its inside is used"
        assert numbers(lower) <= numbers(version(package)) < numbers(upper)


def test_the_bound_of_pyopenssl_is_the_newest_that_is_known() -> None:
    assert numbers(bounds()["pyOpenSSL"][1]) == (NEWEST[0], NEWEST[1] + 1)


def test_keys_are_unique_and_a_vital_one_says_what_would_be_lost() -> None:
    keys = [each.key for each in ASSUMPTIONS]
    assert len(keys) == len(set(keys))
    assert all(each.otherwise and not each.otherwise.endswith(".") for each in ASSUMPTIONS)


def test_the_page_about_security_has_the_table() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (start|degraded) \|", page, re.MULTILINE)
    assert rows == [(each.key, each.package, "start" if each.vital else "degraded") for each in ASSUMPTIONS]
