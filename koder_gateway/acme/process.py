"""The ACME process, as the gateway has it."""

from __future__ import annotations

from ..reactor.helper_process import HelperProcess
from .messages import LONGEST_PROGRESS, Progress, Terms


class AcmeProcess(HelperProcess[Progress]):
    """One ACME process; raises OSError where it cannot be started. Asked to `end`, it gives up its lease and ends at
    once: the next one goes on with its orders."""

    def __init__(self, terms: Terms) -> None:
        super().__init__("koder_gateway.acme.daemon", terms, Progress, LONGEST_PROGRESS)
