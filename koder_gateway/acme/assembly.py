"""What the ACME process consists of, put together; the only module that knows all of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from .authority import Authority
from .coordinator import Coordinator
from .known_names import digests
from .layout import Layout
from .messages import Terms
from .name_work import NameWork
from .reporting import Report
from .resolving import resolver_of
from .self_check import SelfCheck
from .state_folder import StateFolder
from .storage import Storage

# Seconds until each gateway has copied what is in a store.
_SPREAD: Final = 1.5


def assemble(terms: Terms, layout: Layout, report: Report, part: Callable[[], float]) -> Coordinator:
    """The coordinator of these terms, ready for names. Raises StorageError where the folder cannot be used."""
    folder = StateFolder(layout, terms.owner)
    storage: Storage = folder
    spread = 0.0
    if terms.store is not None:
        # Its client is a third of what a start takes.
        from .shared_store import SharedStore, connect

        storage, spread = SharedStore(connect(terms.store), terms.store, folder, terms.owner), _SPREAD
    coordinator = Coordinator(storage, report, terms.rate, time.time, part, digests(terms))
    resolver = resolver_of(terms.resolver)
    check = SelfCheck(terms.challenge, terms.check_port, terms.base_domain, resolver, storage, spread)
    coordinator.work = NameWork(
        coordinator, storage, check, lambda: Authority(terms, storage), terms.keys, terms.challenge, spread
    )
    return coordinator
