"""docs/errors.md has a section for every code, with its status and its OAuth error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from koder_gateway import errors
from koder_gateway.errors import CODES, Refusal
from koder_gateway.wire.oauth_error import OAUTH_ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
STATUSES = {value.code: value.status for value in vars(errors).values() if isinstance(value, Refusal)}


def test_there_is_a_section_for_every_code_and_no_other() -> None:
    assert sorted(SECTIONS) == sorted((*CODES, "not_ready"))


@pytest.mark.parametrize("code", CODES)
def test_a_section_begins_with_status_and_oauth_error(code: str) -> None:
    assert SECTIONS[code].startswith(f"{STATUSES[code]}, `{OAUTH_ERRORS[code]}`. ")
