"""Python runs this before a gateway that has this folder in PYTHONPATH: a signal has the process write down what it
holds. Forked workers have it too."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path


def _write(number: int, frame: object) -> None:
    """The delayed calls on the reactor, and how many objects there are of each class of the gateway's."""
    gc.unfreeze()  # what was there from the start counts, too
    gc.collect()
    calls: Counter[str] = Counter()
    reactor = sys.modules.get("twisted.internet.reactor")
    if reactor is not None:
        for call in reactor.getDelayedCalls():
            function = call.func
            calls[getattr(function, "__qualname__", type(function).__name__)] += call.active()
    objects = Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for each in gc.get_objects()
        if str((kind := type(each)).__module__).startswith("koder_gateway.")
    )
    path = Path(os.environ["SOAK_PROBE"]) / f"{os.getpid()}.json"
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"calls": calls, "objects": objects}))
    draft.rename(path)


signal.signal(signal.SIGRTMIN + 7, _write)
