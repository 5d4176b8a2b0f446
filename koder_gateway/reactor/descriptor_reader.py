"""A descriptor that a reactor waits for, and what to call when it can be read."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class DescriptorReader:
    """For `addReader`. Whoever owns the descriptor removes the reader before closing it."""

    def __init__(self, descriptor: int, name: str, read: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._name = name
        self._read = read

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return self._name

    def doRead(self) -> None:
        """See IReadDescriptor."""
        self._read()

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor: the reactor ends."""
