"""Whatever is done to a good document: settings, or lines that each name a file and a key."""

from __future__ import annotations

import copy
import datetime
import re
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.config import ConfigurationError, Settings, schema
from koder_gateway.config.kinds import Where
from koder_gateway.config.loading import read_settings
from tests.kit.schemas import schema_faults

SAMPLE = Path(__file__).parents[2] / "etc" / "koder-gateway.toml"
GOOD = tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", SAMPLE.read_text()))
# In an own folder that has nothing in it: the paths that are made up must not be devices of this machine.
WHERE = Where(Path(__file__).parent / "none", Path("/var/lib/koder-gateway"))
LINE = re.compile(r'FILE: (?:[A-Za-z0-9_-]+|"[^\n]*")(?:\.(?:[A-Za-z0-9_-]+|"[^\n]*")|\[\d+\])*: \S[^\n]*')

NAMES = st.sampled_from(sorted({step for row in schema() for step in re.findall(r"[a-z_]+", row.key)}))
NUMBERS = ["0", "1s", "-1s", "9" * 30 + "d", "1MiB", "10/m", "::1/128"]
NAMED = ["x", "koder", "auth", "POST", "ip", "http://h", "unix:/x", "https://a.example"]
WORDS = st.sampled_from([*NUMBERS, *NAMED, "", "/", "/a", "//", "..", "-", "a\nb", "\u2028: x", "\x00"])
SCALARS = st.one_of(
    WORDS,
    st.text(max_size=12),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**4000)]),
    st.floats(),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, datetime.UTC])),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with each key or index in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        found = places(document)
        if not found:
            break
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["replace", "remove", "rename", "repeat"])):
            case "replace":
                container[key] = draw(VALUES)
            case "remove":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(NAMES | st.text(max_size=6))] = container.pop(key)
            case "repeat" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
    return document


def read(document: dict[str, Any]) -> Settings | list[str]:
    try:
        return read_settings(document, "FILE", WHERE)
    except ConfigurationError as error:
        return error.faults


def test_the_document_before_any_mutation_is_good() -> None:
    assert read_settings(copy.deepcopy(GOOD), "FILE", WHERE).limits == Settings().limits


@settings(deadline=None, max_examples=400)
@given(mutated())
def test_settings_or_lines_that_name_a_key(document: dict[str, Any]) -> None:
    result = read(document)
    if isinstance(result, Settings):
        assert schema_faults(document) == []
        assert {route.service for route in result.routes} <= set(result.services)
        assert all(rule.burst > 0 and rule.quota > 0 and rule.key for rule in result.limits)
        assert all(service.urls for service in result.services.values())
    else:
        assert result
        assert [line for line in result if not LINE.fullmatch(line)] == []
        assert [line for line in result if len(line.splitlines()) != 1] == []
