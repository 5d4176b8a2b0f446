"""What a gateway holds, as seen from outside: metrics that must be back at zero, descriptors, and, by the probe, its
delayed calls and objects."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kit.gateways import GatewayProcess
from tests.soak.patience import until

# Everything that is held for clients, and what is held at services once kept connections are over.
_BACK_TO_ZERO = re.compile(
    r"koder_gateway_(connections_open|exchanges_in_flight|tunnels_open|upstream_connections|upstream_waiting|"
    r"limit_in_flight|limit_entries|upstream_address_connections)(\{.*\})?"
)
_SIGNAL = signal.SIGRTMIN + 7
# Objects that there may be more of after a load: caches, each with its bound (docs/architecture.md), and what belongs
# to the configuration that a service, a connection to the store or a certificate was made with.
_MORE = {
    # The descriptor that the loop keeps for a shortage.
    "/": 1,
    "exchange.context.RequestContext": 1024,
    "policy.certificates.TlsInfo": 1024,
    "ops.counters._Cell": 2048,
    "errors.Refusal": 256,
    # By each new certificate that clients have seen: the same cache's.
    "policy.certificates.CertificateNames": 1024,
    "wire.response.ResponseHead": 4,
    "wire.response.ResponseReader": 4,
    "wire.fields.FieldKinds": 4,
    "config.settings.LogSettings": 1,
    "config.limits_store.StoreUrl": 1,
    "ops.process_state.ReloadRecord": 1,
    "ops.process_state.Verdict": 1,
}
PROBE = Path(__file__).parent / "probe"


@dataclass(frozen=True)
class Held:
    """What one process holds. `descriptors` are counted by what they are."""

    descriptors: Counter[str]
    calls: Counter[str]
    objects: Counter[str]


def unsettled(gateway: GatewayProcess) -> dict[str, float]:
    """The metrics that are not zero and must be."""
    return {name: value for name, value in gateway.metrics().items() if value and _BACK_TO_ZERO.fullmatch(name)}


def served_by(gateway: GatewayProcess) -> list[int]:
    """The processes that serve, in the order of their start."""
    return gateway.workers or [gateway.pid]


def resident(pid: int) -> int:
    """Bytes of memory that a process alone has in RAM (smaps_rollup of proc(5)): workers share the rest."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +([0-9]+) kB$", text, re.MULTILINE)))


def held(pid: int, probe: Path) -> Held:
    """What the process of that number holds; it writes that into the folder `probe`."""
    found = until(lambda: _between_sweeps(pid, probe), "the probe writes between two sweeps")
    return Held(descriptors(pid), Counter(found["calls"]), Counter(found["objects"]))


def _between_sweeps(pid: int, probe: Path) -> dict[str, dict[str, int]] | None:
    """What the probe says; None where it met the process within a sweep, whose next call is not there yet."""
    path = probe / f"{pid}.json"
    path.unlink(missing_ok=True)
    os.kill(pid, _SIGNAL)
    until(path.exists, "the probe writes")
    found: dict[str, dict[str, int]] = json.loads(path.read_text())
    return found if found["calls"].get("LoopingCall") else None


def links(pid: int) -> Counter[str]:
    """What the open files of a process are."""
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[os.readlink(link)] += 1
    return found


def descriptors(pid: int) -> Counter[str]:
    """The same by kind: without the numbers of sockets and pipes."""
    kinds: Counter[str] = Counter()
    for target, count in links(pid).items():
        kinds[re.sub(r":\[\d+\]$", "", target)] += count
    return kinds


def grown(before: Held, after: Held) -> dict[str, tuple[int, int]]:
    """What there is more of than before and than there may be: the counts before and after."""
    pairs = [(before.descriptors, after.descriptors), (before.calls, after.calls), (before.objects, after.objects)]
    return {
        name: (early[name], count)
        for early, late in pairs
        for name, count in late.items()
        if count > early[name] + _MORE.get(name.removeprefix("koder_gateway."), 0)
    }
