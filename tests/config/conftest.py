"""Whatever a test here has the gateway accept, the JSON Schema must accept too: an editor must not complain of it."""

from __future__ import annotations

from typing import Any

import pytest

from koder_gateway.config import Settings, loading
from tests.kit.schemas import schema_faults

_read = loading.read_settings


def _read_and_compare(document: dict[str, Any], *arguments: Any, **named: Any) -> Settings:
    settings = _read(document, *arguments, **named)
    assert schema_faults(document) == []
    return settings


@pytest.fixture(autouse=True)
def _compared_with_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_settings", _read_and_compare)
