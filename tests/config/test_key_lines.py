"""The lines of keys in TOML files."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config import key_lines as module
from koder_gateway.config.key_lines import key_lines
from koder_gateway.config.toml_text import toml_key, toml_value

TEXT = """\
# A comment with [brackets]
log.level = "info"

services = { a = "http://a:1", "b.c" = { url = "http://b:2" } }
[tenants]  # registry = "no"
registry = QUOTES
[timeouts]
head = 1
QUOTES
refresh = "1s"
[[routes]]
path = "/a"
allow = [
  "10.0.0.0/8",  # ]
  [ "nested" ],
]
[[routes]]
path = '''/b'''
[routes.more]
key = 1
[a."b c".d]
x.y = 1
""".replace("QUOTES", '"""')


def test_each_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        "log": 2,
        "log.level": 2,
        "services": 4,
        "services.a": 4,
        'services."b.c"': 4,
        'services."b.c".url': 4,
        "tenants": 5,
        "tenants.registry": 6,
        "tenants.refresh": 10,
        "routes[0]": 11,
        "routes[0].path": 12,
        "routes[0].allow": 13,
        "routes[1]": 17,
        "routes[1].path": 18,
        "routes[1].more": 19,
        "routes[1].more.key": 20,
        'a."b c".d': 21,
        'a."b c".d.x': 22,
        'a."b c".d.x.y': 22,
    }


def test_line_ends_of_windows_and_tables_in_arrays() -> None:
    assert key_lines("a = 1\r\n\r\nroutes = [\r\n{ path = 1 },\r\n{ path = 2 }]\r\nb = 2") == {
        "a": 1,
        "routes": 3,
        "routes[0].path": 3,
        "routes[1].path": 3,
        "b": 6,
    }


def test_what_would_take_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PARSED", 2000)
    rows = "[1],\n" * 200
    found = key_lines(f"a = 1\nb = [\n{rows}]\nc = 3\n")
    assert found == {"a": 1}


KEYS = st.text(min_size=1, max_size=5)
VALUES = st.one_of(st.integers(0, 9), st.text(), st.lists(st.text(), max_size=3))


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4), st.integers(0, 3))
def test_every_key_of_every_file_is_found_on_its_line(document: dict[str, dict[str, Any]], blank: int) -> None:
    lines: list[str] = []
    expected = []
    for table, keys in document.items():
        lines += [""] * blank + [f"[{toml_key(table)}]"]
        expected.append(len(lines))
        for key, value in keys.items():
            lines.append(f"{toml_key(key)} = {toml_value(value)}")
            expected.append(len(lines))
    text = "\n".join(lines)
    assert tomllib.loads(text) == document
    assert list(key_lines(text).values()) == expected
