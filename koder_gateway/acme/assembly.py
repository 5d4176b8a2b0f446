"""What the ACME process consists of, put together; the only module that knows all of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .authority import Authority
from .coordinator import Coordinator
from .layout import Layout
from .messages import Terms
from .name_work import NameWork
from .reporting import Report
from .resolving import resolver_of
from .self_check import SelfCheck
from .state_folder import StateFolder


def assemble(terms: Terms, layout: Layout, report: Report, part: Callable[[], float]) -> Coordinator:
    """The coordinator of these terms, ready for names. Raises StorageError where the folder cannot be used."""
    storage = StateFolder(layout, terms.owner)
    coordinator = Coordinator(storage, report, terms.rate, time.time, part)
    check = SelfCheck(terms.challenge, terms.check_port, terms.base_domain, resolver_of(terms.resolver), storage)
    coordinator.work = NameWork(
        coordinator, storage, check, lambda: Authority(terms, storage), terms.keys, terms.challenge
    )
    return coordinator
