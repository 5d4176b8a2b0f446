"""The threads of the ACME process: one for each name in flight, and one that asks about renewals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from .authority import Authority
from .coordinator import Coordinator
from .faults import Fault, OrderError, broken
from .issued import described, leaf
from .layout import NameRecord, is_name
from .order_run import OrderRun, Postponed, Wish
from .self_check import SelfCheck
from .storage import Storage, StorageError

# Questions about renewals that fail in a row before the others are left for later.
_MAX_FAULTS: Final = 3


class NameWork:
    """Checks and orders names, and tells `coordinator` what becomes of them. `converse` begins a conversation with
    the authority; `spread` is how many seconds it may take until each gateway answers a challenge."""

    def __init__(
        self,
        coordinator: Coordinator,
        storage: Storage,
        check: SelfCheck,
        converse: Callable[[], Authority],
        keys: str,
        challenge: str,
        spread: float = 0.0,
    ) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._check = check
        self._converse = converse
        self._keys = keys
        self._challenge = challenge
        self._spread = spread
        # Of several threads without an account only one makes one.
        self._account = threading.Lock()

    def begin(self, record: NameRecord) -> None:
        """See `Work`."""
        threading.Thread(target=self._run, args=(record,), name=record.name, daemon=True).start()

    def ask(self, records: list[NameRecord]) -> None:
        """See `Work`."""
        threading.Thread(target=self._ask, args=(records,), daemon=True).start()

    def _run(self, record: NameRecord) -> None:
        name = record.name
        try:
            self._order(record)
        except Postponed:
            self._coordinator.postponed(name)
        except OrderError as error:
            self._coordinator.failed(name, error.fault)
        except StorageError as error:
            self._coordinator.failed(name, broken(str(error), error.advice))
        except Exception as error:  # A name must not stay in flight for ever, whatever is wrong here.
            words = f"an order ends with {type(error).__name__}: {error}"
            self._coordinator.failed(name, Fault("broken", "name", words[:300], "report this: it is a bug"))
        finally:
            self._coordinator.finished()

    def _order(self, record: NameRecord) -> None:
        name = record.name
        if not is_name(name):
            words = f"{name} is no name that authorities issue for"
            self._coordinator.held(name, words, "remove the domain from its tenant")
            return
        if not record.order_url:
            held = self._check.look(name, self._coordinator.wait)
            if held is not None:
                self._coordinator.held(name, held.words, held.advice)
                return
        with self._account:
            authority = self._converse()
        try:
            run = OrderRun(authority, self._storage, self._coordinator, self._spread)
            replaces = self._ari(name) if record.not_after else ""
            wish = Wish(name, record.order_url, replaces, self._keys, self._challenge)
            self._coordinator.issued(name, run.run(wish))
        finally:
            authority.close()

    def _ask(self, records: list[NameRecord]) -> None:
        """Ask about renewals; what goes wrong is asked again, and meanwhile a certificate's life decides."""
        unheard = {record.name for record in records}
        try:
            with self._account:
                authority = self._converse()
            try:
                faults = 0
                for record in records:
                    unheard.discard(record.name)
                    try:
                        info = authority.renewal_info(self._ari(record.name))
                    except OrderError:
                        # It may know nothing of this one; it may also be away, and then it is not asked for all.
                        info, faults = None, faults + 1
                    if info is None:
                        self._coordinator.suggested(record.name, None, "", None)
                    else:
                        faults = 0
                        self._coordinator.suggested(record.name, info.window, info.explanation, info.after)
                    if faults >= _MAX_FAULTS:
                        break
            finally:
                authority.close()
        except (OrderError, StorageError):
            pass
        finally:
            for name in unheard:
                self._coordinator.suggested(name, None, "", None)
            self._coordinator.asked()

    def _ari(self, name: str) -> str:
        pem = self._storage.certificate(name)
        with suppress(ValueError):
            return "" if pem is None else described(leaf(pem)).ari
        return ""
