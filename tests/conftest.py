"""What every test has: nothing logged as an error goes unseen, nothing stays behind on the reactor."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.kit.memory import MemoryGateway

settings.register_profile("gateway", deadline=None, max_examples=30)
settings.load_profile("gateway")


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Undo what pytest-twisted does to a property: it wraps it anew for each parameter, one around the other."""
    handle = getattr(pyfuncitem.obj, "hypothesis", None)
    inner = None if handle is None else handle.inner_test
    yield
    if handle is not None:
        handle.inner_test = inner


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """End the run once a signal, as that of timeout(1), has stopped the reactor: every further test would fail."""
    if getattr(reactor, "_startedBefore", False):
        pytest.exit(f"the reactor has been stopped, by a signal, before {item.nodeid}", returncode=1)


class LoggedErrors:
    """The failures that were logged: `log.failure`, `log.err`, and whatever is critical.

    A test that provokes one takes it out with `take`; what is left fails the test. An operational line (`log.error`
    with a text and nothing more) is an answer to a fault outside, so it is for the tests that expect it to look at.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Observe one event."""
        level = event.get("log_level")
        if level is LogLevel.critical or event.get("isError") or ("log_failure" in event and level is LogLevel.error):
            self._events.append(event)

    def take(self) -> list[LogEvent]:
        """The events so far, which then count as seen."""
        events, self._events = self._events, []
        return events

    def complain(self) -> None:
        """Fail if there is an event that nobody has taken."""
        events = self.take()
        if events:
            pytest.fail("logged as an error:\n" + "\n".join(map(_described, events)), pytrace=False)


def _described(event: LogEvent) -> str:
    failure = event.get("log_failure")
    text = formatEvent(event) or repr(event)
    return text if failure is None else f"{text}\n{failure.getTraceback()}"


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """The errors that the test has logged; one that the test does not take fails it."""
    errors = LoggedErrors()
    globalLogPublisher.addObserver(errors)
    try:
        yield errors
    finally:
        globalLogPublisher.removeObserver(errors)
    errors.complain()


@pytest.fixture(autouse=True, scope="module")
def _unhandled_failures() -> Iterator[None]:
    """Deferreds that failed unheard say so when they are collected: once a module, since collecting takes time."""
    errors = LoggedErrors()
    yield
    globalLogPublisher.addObserver(errors)
    try:
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(errors)
    errors.complain()


def _scheduled() -> list[Any]:
    calls: list[Any] = reactor.getDelayedCalls()  # type: ignore[attr-defined]
    return [call for call in calls if call.active()]


def _turn() -> None:
    """Let the reactor do what it was about to do at once."""
    for _ in range(2):
        pytest_twisted.blockon(deferLater(reactor, 0, lambda: None))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _nothing_scheduled() -> Iterator[None]:
    """Fail a test that leaves a delayed call on the reactor; what wider fixtures have scheduled may stay."""
    before = [call.func for call in _scheduled()]
    yield
    if not _scheduled():
        return
    _turn()
    left = [call for call in _scheduled() if call.func not in before]
    described = "\n".join(map(str, left))  # a cancelled call no longer says what it was
    for call in left:
        call.cancel()
    if left:
        pytest.fail(f"left on the reactor:\n{described}", pytrace=False)


@pytest.fixture
def clock() -> Clock:
    """Time that passes only when the test says so."""
    return Clock()


@pytest.fixture
def make_gateway() -> Iterator[Callable[..., MemoryGateway]]:
    """Makes gateways in memory; at the end of the test each must have let go of everything."""
    made: list[MemoryGateway] = []

    def make(**options: Any) -> MemoryGateway:
        gateway = MemoryGateway(**options)
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.hang_up()


@pytest.fixture
def gateway(make_gateway: Callable[..., MemoryGateway]) -> MemoryGateway:
    """A gateway in memory: open registry, no limits, default routes and deadlines."""
    return make_gateway()
