"""Fields that other software takes for the truth: which they are, what the documents say, what may be let through."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from koder_gateway.config.faults import ReadError
from koder_gateway.config.field_names import FORWARDED_FIELD, SPOOFABLE_FIELD
from koder_gateway.config.kinds import Where
from koder_gateway.wire.body import trailer_passes
from koder_gateway.wire.fields import DROP, FORWARDED, PASS, FieldKinds, folded
from koder_gateway.wire.spoofable_fields import SPOOFABLE_FIELDS, SPOOFABLE_PREFIXES, is_spoofable

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
WHERE = Where.beside(DOCUMENT, {})
MEMBERS = sorted(SPOOFABLE_FIELDS) + [family + b"x" for family in SPOOFABLE_PREFIXES]


def test_the_documents_name_them_all() -> None:
    section = DOCUMENT.read_text().partition("## Headers dropped towards services")[2]
    listed = section.partition("`requests.allow_fields` lets these pass:")[2].partition(", and `X-Remote` itself")[0]
    names = {name.lower().encode() for name in re.findall(r"`([A-Za-z0-9-]+\*?)`", listed)}
    assert names == SPOOFABLE_FIELDS | {family + b"*" for family in SPOOFABLE_PREFIXES}


def test_they_are_well_formed_and_listed_once() -> None:
    for name in MEMBERS:
        assert re.fullmatch(rb"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert [name for name in SPOOFABLE_FIELDS if name.startswith(SPOOFABLE_PREFIXES)] == []
    assert len({folded(name) for name in MEMBERS}) == len(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS, ids=bytes.decode)
def test_a_client_may_send_none_but_those_that_are_allowed(name: bytes) -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID")
    assert is_spoofable(name)
    assert kinds.classify(name.title()) == FORWARDED
    assert kinds.classify(name.replace(b"-", b".") + b"~") in (DROP, FORWARDED)
    assert not trailer_passes(name, b"X-Tenant-ID")
    allowing = FieldKinds.of_requests(b"X-Tenant-ID", frozenset((name,)))
    assert allowing.classify(name.title()) == PASS


@pytest.mark.parametrize("family", SPOOFABLE_PREFIXES, ids=bytes.decode)
def test_of_a_family_only_what_is_allowed_passes(family: bytes) -> None:
    kinds = FieldKinds.of_requests(b"X-Tenant-ID", frozenset((family + b"user",)))
    assert kinds.classify(family + b"user") == PASS
    assert kinds.classify(family + b"users") == kinds.classify(family[:-1]) == FORWARDED
    assert kinds.classify(family.replace(b"-", b".") + b"user") in (DROP, FORWARDED)


@pytest.mark.parametrize("name", ["X-Auth-Request-User", "x-envoy-original-path", "Remote-User", "X-SSL"])
def test_configurations_may_name_them(name: str) -> None:
    for kind in (SPOOFABLE_FIELD, FORWARDED_FIELD):
        assert kind.read(name, WHERE) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("X-HTTP-Methd", 'did you mean "x-http-method"?'),
        ("Accept", 'write one of those, as in "X-HTTP-Method-Override"'),
        ("X-Envoy_Thing", 'write one of those, as in "X-HTTP-Method-Override"'),
        ("X-Envoy-\u00e4", 'write one of those, as in "X-HTTP-Method-Override"'),
    ],
)
def test_others_are_no_names_to_allow(name: str, hint: str) -> None:
    with pytest.raises(ReadError) as raised:
        SPOOFABLE_FIELD.read(name, WHERE)
    ((_, message),) = raised.value.faults
    assert message == f'"{name}" is not one of the headers that the gateway drops; {hint}'
