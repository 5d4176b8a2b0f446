"""What is recorded of a sampled exchange: its span, and one for each attempt at a service."""

from __future__ import annotations


class Attempt:
    """One attempt at a service: the id of its span, the service's address, and when it began and, where another one
    followed, ended (monotonic seconds; 0: with the exchange). `fault` is why it failed, an event of `states`."""

    __slots__ = ("begun", "ended", "fault", "span", "url")

    def __init__(self, span: bytes, url: str, begun: float) -> None:
        self.span = span
        self.url = url
        self.begun = begun
        self.ended = 0.0
        self.fault = ""


class ExchangeTrace:
    """The span of an exchange (16 hexadecimal digits), its `parent` (b"" for none), the flags that services get, and
    the attempts, whose last one has `next_span`: the id is known before the attempt is made."""

    __slots__ = ("attempts", "flags", "next_span", "parent", "span")

    def __init__(self, span: bytes, parent: bytes, flags: int, next_span: bytes) -> None:
        self.span = span
        self.parent = parent
        self.flags = flags
        self.next_span = next_span
        self.attempts: list[Attempt] = []
