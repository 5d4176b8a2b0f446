"""How a service's addresses are probed: the table of `services.NAME.health`, and the values made from it."""

# Fields are declared by a call for each, whose values are immutable.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .faults import ReadError, shown
from .json_schema import table_schema
from .kinds import Kind, Where, optional, optional_text, refined, whole
from .shapes import EMPTY, Shape, either, integer, pattern
from .tables import setting, table
from .values import DEADLINE, HOST, PATH_PREFIX

_RANGE: Final = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_EXAMPLE: Final = 'write one as in 204 or "200-399", or a list of these'

# Statuses as ranges, both ends included.
StatusRanges = tuple[tuple[int, int], ...]


def _read_statuses(value: object, where: Where) -> StatusRanges:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ReadError.because("the list is empty; write at least one status")
    return tuple(_status_range(each) for each in values)


def _status_range(value: object) -> tuple[int, int]:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _RANGE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ReadError.because(f"{shown(value)} is no status of a response; {_EXAMPLE}")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise ReadError.because(f'{shown(value)} ends before it begins; write "{high}-{low}"')
    return low, high


_ONE: Final[Shape] = either(integer(100, 599), pattern(_RANGE.pattern))
_SEVERAL: Final[Shape] = {"type": "array", "items": dict(_ONE), "minItems": 1}
_STATUSES: Final = Kind("statuses", _read_statuses, shape=either(_ONE, _SEVERAL))
# A probe costs the service a connection.
_INTERVAL: Final = refined(DEADLINE, lambda seconds: seconds >= 0.5, 'is too short; write at least "500ms"')


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """The probes of one service: their path and Host ("": one that requests have), the seconds from one to the next
    and until the whole response must be there, the statuses of a success, and how many failures or successes in a row
    make an address unhealthy or healthy."""

    path: str = setting(
        PATH_PREFIX,
        about="The path that probes request.",
    )
    interval: float = setting(
        _INTERVAL,
        "5s",
        about='From the beginning of one probe to that of the next; at least `"500ms"`.',
    )
    timeout: float = setting(
        DEADLINE,
        "2s",
        about="Until the whole response must be there; not more than `interval`.",
    )
    unhealthy: int = setting(
        whole(1, 100),
        2,
        about="Failures in a row after which an address is unhealthy, 1 to 100.",
    )
    healthy: int = setting(
        whole(1, 100),
        1,
        about="Successes in a row after which it is healthy, 1 to 100.",
    )
    host: str = setting(
        optional_text(HOST),
        "",
        about='The Host of the probes; `""`: the service\'s `server_name`, else the base domain.',
    )
    status: StatusRanges = setting(
        _STATUSES,
        "200-399",
        about="Statuses of a success: one as in `204`, a range, or a list of these.",
    )


_TABLE: Final = table(HealthSettings)
_PATH: Final = optional(PATH_PREFIX)


def _read_health(value: object, where: Where) -> HealthSettings | None:
    if not isinstance(value, dict):
        path = _PATH.read(value, where)
        return None if path is None else HealthSettings(path=path)
    health = _TABLE.read(value, where)
    if health.timeout > health.interval:
        raise ReadError([(".timeout", "is longer than the interval of the probes; write a shorter one")])
    return health


HEALTH: Final = Kind(
    "path or table", _read_health, shape=either(EMPTY, PATH_PREFIX.scalar, table_schema(HealthSettings))
)
