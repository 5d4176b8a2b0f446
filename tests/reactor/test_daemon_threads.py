"""Threads for work that may block: while one computes, the reactor gets the interpreter soon."""

from __future__ import annotations

import sys
import threading

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool

from koder_gateway.reactor.daemon_threads import daemon_threads


@pytest_twisted.ensureDeferred
async def test_the_interpreter_is_passed_on_sooner_while_any_works() -> None:
    usual = sys.getswitchinterval()
    threads = daemon_threads(reactor, "test")
    first, second = threading.Event(), threading.Event()

    def work(goes_on: threading.Event) -> float:
        goes_on.wait(10)
        return sys.getswitchinterval()

    def fails() -> None:
        raise ValueError

    one = deferToThreadPool(threads, threads.getThreadPool(), work, first)
    other = deferToThreadPool(threads, threads.getThreadPool(), work, second)
    first.set()
    assert await one == 0.0005
    assert sys.getswitchinterval() == 0.0005, "the other one still works"
    second.set()
    assert await other == 0.0005
    assert sys.getswitchinterval() == usual
    failing = deferToThreadPool(threads, threads.getThreadPool(), fails)
    failing.addErrback(lambda failure: failure.trap(ValueError))
    await failing
    assert sys.getswitchinterval() == usual
