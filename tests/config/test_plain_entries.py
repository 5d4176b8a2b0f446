"""Tenants that are written in the usual way: whatever is read so, TOML's parser reads the same."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.config.plain_entries import plain_entries

ENTRY = '[[tenant]]\nslug = "a"\ndomains = ["a.example", "b.example"]\nstatus = "suspended"\n'


def test_the_usual_way() -> None:
    others = '# and\n[[tenant]]\nslug = "b"\n[[tenant]]\nslug = "c"\ndomains = []\n'
    document = plain_entries(f"# All of them.\n\n{ENTRY}\n{others} \t\n# end\n".encode())
    assert document == {
        "tenant": [
            {"slug": "a", "domains": ["a.example", "b.example"], "status": "suspended"},
            {"slug": "b"},
            {"slug": "c"},
        ]
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "tenant = []\n",
        ENTRY + "nonsense",
        ENTRY + "nonsense = 1\n",
        ENTRY + 'slug = "b"\n',
        ENTRY.replace('"a"', '"\\u0061"'),
        ENTRY.replace('"a"', "'a'"),
        ENTRY.replace('"a"', '"\u00e9"'),
        ENTRY.replace('"a"', '"""a"""'),
        ENTRY.replace('"a"', "5"),
        ENTRY.replace("slug", "slog"),
        ENTRY.replace("\n", "\r\n"),
        "# \x00\n" + ENTRY,
        ENTRY + "# \x7f",
    ],
    ids=range(15),
)
def test_anything_else_is_the_parsers(text: str) -> None:
    assert plain_entries(text.encode()) is None


pieces = st.sampled_from(
    [
        "[[tenant]]",
        "\n",
        "slug = ",
        '"a"',
        "domains = ",
        "[",
        "]",
        ", ",
        '"b.example"',
        "status = ",
        "#",
        " ",
        "x",
        ENTRY,
    ]
)


@given(st.lists(pieces, max_size=12), st.lists(pieces, max_size=4), st.integers(0, len(ENTRY)))
def test_it_is_what_the_parser_reads(before: list[str], within: list[str], at: int) -> None:
    text = "".join(before) + ENTRY[:at] + "".join(within) + ENTRY[at:]
    document = plain_entries(text.encode())
    if document is None:
        return
    read: Any = tomllib.loads(text)
    for tenant in read["tenant"]:
        if tenant.get("domains") == []:
            del tenant["domains"]
    assert document == read
