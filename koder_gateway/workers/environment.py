"""The environment variables by which one generation leaves something to the next. Every start reads them, so that
nothing large is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

INHERITED: Final = "KODER_GATEWAY_GENERATION"
REHEARSAL: Final = "KODER_GATEWAY_REHEARSAL"


def carries_on(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a generation before has left something to this process, which has not taken it yet."""
    return INHERITED in environ
