"""The exporter's process, as the gateway has it."""

from __future__ import annotations

from typing import Final

from ..reactor.helper_process import HelperProcess
from .records import Progress, Terms

_LONGEST: Final = 1 << 12


class ExporterProcess(HelperProcess[Progress]):
    """One process of the exporter; raises OSError where it cannot be started. Asked to `end`, it sends what it has,
    and ends within two seconds."""

    def __init__(self, terms: Terms) -> None:
        super().__init__("koder_gateway.tracing.exporter", terms, Progress, _LONGEST)
