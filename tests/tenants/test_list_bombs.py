"""Lists of tenants that are made to cost: what is held while they are read, and that others have their turn."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, ListContext, TenantList, load_tenants
from koder_gateway.config.faults import BoundedFaults
from koder_gateway.config.registry import MAX_ENTRY, MAX_LIST
from koder_gateway.config.registry import parse_tenants as parse_toml
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.tenants.tenant_list import parse_tenant_list as parse_json
from koder_gateway.tenants.tenant_list import read_cache, write_cache
from tests.kit.tenants import in_order

BASE = "id.koder.dev"
SIZE = 1 << 19
CONTEXT = ListContext(BASE)
Parse = Callable[..., TenantList]


def repeated(before: bytes, piece: bytes, after: bytes = b"") -> bytes:
    return before + piece * (SIZE // len(piece)) + after


MANY_DOMAINS = [f"d{number}.example" for number in range(40_000)]
WRONG_DOMAINS = json.dumps({"slug": "a", "domains": [""] * 5_000}).encode()
BOMBS = {
    "numbers": (parse_json, repeated(b"[", b"0,", b"0]")),
    "lists": (parse_json, repeated(b"[", b"[],", b"[]]")),
    "objects": (parse_json, repeated(b"[", b"{},", b"{}]")),
    "nested": (parse_json, repeated(b"", b"[")),
    "nested objects": (parse_json, repeated(b"[", b'{"a":')),
    "escapes": (parse_json, repeated(b"[", rb'{"slug":"\u0061","x":{"\\":"\""}},', b"{}]")),
    "conflicts": (parse_json, repeated(b"[", b'{"slug":"a","domains":["a.example"]},', b"{}]")),
    "wrong domains": (parse_json, b"[" + b",".join([WRONG_DOMAINS] * 4) + b"]"),
    "one tenant": (parse_json, json.dumps([{"slug": "a", "domains": MANY_DOMAINS}]).encode()),
    "one string": (parse_json, b'["' + b"a" * SIZE + b'"]'),
    "tables": (parse_toml, repeated(b"", b"[[tenant]]\n")),
    "same tables": (parse_toml, repeated(b"", b'[[tenant]]\nslug = "a"\n')),
    "an array": (parse_toml, repeated(b"tenant = [", b"0,", b"0]")),
    "an array of tables": (parse_toml, repeated(b"tenant = [", b"{},", b"{}]")),
    "nested arrays": (parse_toml, repeated(b"tenant = ", b"[")),
    "a key of many": (parse_toml, repeated(b"", b"a.", b"a = 1")),
    "a quoted key of many": (parse_toml, b"[[tenant]]\n" + b'"a" . ' * 20_000 + b"a = 1"),
    "a long key": (parse_toml, repeated(b"", b"a", b" = 1")),
    "keys": (parse_toml, b"[[tenant]]\n" + b"".join(b"k%d = 1\n" % n for n in range(20_000))),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_list_takes_no_more_than_a_few_times_its_size(name: str) -> None:
    parse, data = BOMBS[name]
    for warm in (b"", b"[1]"):
        told(parse, warm)
    tracemalloc.start()
    try:
        faults = told(parse, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * SIZE, f"{peak / SIZE:.1f} times its size"
    assert 0 < len(faults) <= BoundedFaults.KEPT + 1
    assert all(line.startswith("LIST: ") and line.isprintable() and len(line) < 400 for line in faults)


def told(parse: Parse, data: bytes) -> list[str]:
    """The faults of a list, or why it is none."""
    try:
        return list(parse(data, "LIST", CONTEXT).faults)
    except ConfigurationError as error:
        return error.faults


def test_ten_faults_are_told_and_the_others_counted() -> None:
    faults = told(parse_json, b"[" + b"0," * 4_999 + b"{}]")
    assert [line.split(": ")[1] for line in faults[:-1]] == [f"tenants[{n}]" for n in range(10)]
    assert faults[-1] == "LIST: and 4,990 more"


def good(count: int) -> list[Tenant]:
    return [Tenant(f"t{n}", (f"www.t{n}.example",), "active", (f"https://t{n}.example",)) for n in range(count)]


def toml(tenants: list[Tenant]) -> bytes:
    return "".join(
        f"# {n}\n[[tenant]]\nslug = {json.dumps(t.slug)}\ndomains = {json.dumps(t.domains)}\n"
        f"cors_origins = {json.dumps(t.cors_origins)}\n"
        for n, t in enumerate(tenants)
    ).encode()


def test_a_large_file_in_parts_is_the_same_as_a_whole() -> None:
    tenants = good(3000)
    assert in_order(parse_toml(toml(tenants), "FILE", CONTEXT).registry) == in_order(tenants)
    wrong = toml(tenants).replace(b'"t2999"', b'"-"').replace(b'"t1500"', b"5")
    found = parse_toml(wrong, "FILE", CONTEXT)
    assert [line.split(": ")[1] for line in found.faults] == ["tenant[1500].slug", "tenant[2999].slug"]
    assert (len(found.registry), found.skipped, found.entries) == (2998, 2, 3000)
    broken = toml(tenants) + b"nonsense\n"
    with pytest.raises(ConfigurationError) as caught:
        parse_toml(broken, "FILE", CONTEXT)
    (line,) = caught.value.faults
    lines = broken.count(b"\n")
    assert line.startswith(f"FILE: line {lines}, column ")


def test_a_list_that_goes_on_with_tables_is_a_fault() -> None:
    text = b"tenant = []\n" + b"# nothing\n" * 10_000 + b'[[tenant]]\nslug = "a"\n'
    with pytest.raises(ConfigurationError, match="tenant was already given as one list"):
        parse_toml(text, "FILE", CONTEXT)


LONG_ENTRIES = {
    "a string": b'"' + rb"\"," * MAX_ENTRY + b'"',
    "a number": b"1" * 3 * MAX_ENTRY,
    "brackets": b"[{" * MAX_ENTRY + b"}]" * MAX_ENTRY,
    "a tenant": json.dumps({"slug": "long", "domains": [f"d{n}.example" for n in range(40_000)]}).encode(),
    "blanks": b'{"slug":"long"' + b" " * 2 * MAX_ENTRY + b"}",
}


@pytest.mark.parametrize("name", LONG_ENTRIES)
def test_an_entry_of_a_list_that_is_too_long_is_left_out_and_told(name: str) -> None:
    rests: list[None] = []
    context = ListContext(BASE, rest=lambda: rests.append(None))
    found = parse_json(b'{"tenants": [{"slug":"a"}, %b , {"slug":"b"}]}' % LONG_ENTRIES[name], "LIST", context)
    assert [tenant.slug for tenant in in_order(found.registry)] == ["a", "b"]
    assert found.faults == ("LIST: tenants[1]: is longer than 256 KiB (at byte 27)",)
    assert (found.skipped, found.entries) == (1, 3)
    # Others had their turn while it was passed over.
    assert len(rests) > 3
    for broken in (LONG_ENTRIES[name][:-1], LONG_ENTRIES[name] + b" {}"):
        with pytest.raises(ConfigurationError, match="is not a list of tenants"):
            parse_json(b"[%b" % broken, "LIST", CONTEXT)


@pytest.mark.parametrize(
    "entry",
    [
        b"domains = [\n%b]\n" % b"".join(b'  "d%d.example",\n' % n for n in range(40_000)),
        b"# " + b"x" * 3 * MAX_ENTRY + b"\n",
        b"\n" * 3 * MAX_ENTRY,
    ],
    ids=["lines", "a line", "blanks"],
)
def test_an_entry_of_a_file_that_is_too_long_is_left_out_and_told(entry: bytes) -> None:
    """The others are read, before it and behind it, and lines are counted on."""
    before, after = toml(good(100)), toml([Tenant("z")])
    long = b'[[tenant]]\nslug = "long"\n' + entry
    line = before.count(b"\n") + 1
    for data, others in ((before + long + after, 101), (before + long, 100), (long + before, 100)):
        found = parse_toml(data, "FILE", CONTEXT)
        at = 0 if others == 100 and data.startswith(long) else 100
        assert found.faults == (f"FILE: tenant[{at}]: is longer than 256 KiB (from line {line if at else 1})",)
        assert (len(found.registry), found.skipped, found.entries) == (others, 1, others + 1)
    with pytest.raises(ConfigurationError) as caught:
        parse_toml(before + long + after + b"nonsense\n", "FILE", CONTEXT)
    lines = (before + long + after).count(b"\n") + 1
    assert caught.value.faults[0].startswith(f"FILE: line {lines}, column ")


def test_what_is_no_entry_is_bounded() -> None:
    with pytest.raises(ConfigurationError, match="within 256 KiB"):
        parse_toml(b"# " + b"x" * 2 * MAX_ENTRY + toml(good(2)), "FILE", CONTEXT)


def test_a_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    with path.open("wb") as file:
        file.truncate(MAX_LIST + 1)
    with pytest.raises(ConfigurationError, match="is longer than 256 MiB"):
        load_tenants(path, BASE)
    with pytest.raises(ConfigurationError, match="cannot be used: it is longer than"):
        read_cache(path, "http://a/", CONTEXT)


def test_others_have_their_turn_with_each_tenant(tmp_path: Path) -> None:
    """However it is read: `rest` is called for each at least once."""
    tenants = good(1000)
    listed = [{"slug": t.slug, "domains": t.domains, "cors_origins": t.cors_origins} for t in tenants]
    cache = tmp_path / "cache.json"
    registry = Registry(tenants)
    write_cache(cache, "http://a/", registry)

    def steps(work: Callable[[Callable[[], object]], object]) -> int:
        calls: list[None] = []
        work(lambda: calls.append(None))
        return len(calls)

    def context(rest: Callable[[], object]) -> ListContext:
        return ListContext(BASE, rest=rest)

    assert steps(lambda rest: parse_json(json.dumps(listed).encode(), "LIST", context(rest))) >= 2000
    assert steps(lambda rest: parse_toml(toml(tenants), "LIST", context(rest))) >= 2000
    assert steps(lambda rest: read_cache(cache, "http://a/", context(rest))) >= 2000
    assert steps(lambda rest: Registry(tenants, rest)) == 1000
    assert steps(lambda rest: write_cache(cache, "http://a/", registry, rest)) >= 2
