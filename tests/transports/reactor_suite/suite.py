"""Twisted's own reactor tests, run against the uvloop reactor; prints each test's outcome as JSON.

Twisted describes what a reactor must do in mixins and makes a test case of each for every reactor it ships.
This makes one more of each. Every test builds a reactor, so every test gets an event loop of its own. They
run in a process of their own (`python suite.py`, from an empty folder) because they replace the global
reactor while they last.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from typing import Any

import uvloop
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestSuite

from koder_gateway.transports.reactor import UvloopReactor

MODULES = (
    "test_core",
    "test_fdset",
    "test_newtls",
    "test_process",
    "test_socket",
    "test_stdio",
    "test_tcp",
    "test_threads",
    "test_time",
    "test_tls",
    "test_udp",
    "test_unix",
)

# Seconds after which a test that never ends has failed.
TIMEOUT = 10

LOG_CONTEXT = "no log context is set around what is read: it would cost more than reading"
SOCKET_TAKEN = "takes a connection by closing the socket under its transport, which is uvloop's to close"
WRITES_AT_ONCE = "expects 1,000 bytes to wait for the next turn of the loop; uvloop has sent them by then"
BACKLOG_WAITS = "expects a client to be dropped when descriptors run out; here it waits in the backlog"
OTHER_USER = "spawns this interpreter as another user, who may not be allowed to read it; spawning is Twisted's own"
KERNEL_CLOSES = "expects a log line about a descriptor nobody asked for; the kernel has closed it unseen"

# What is left out of Twisted's tests, and why; tests/transports/test_suite.py holds docs/transports.md to it.
LEFT_OUT = {
    "AdoptStreamConnectionTestsBuilder.test_nonStreamingProducer": SOCKET_TAKEN,
    "AdoptStreamConnectionTestsBuilder.test_serverAddressTCP4": SOCKET_TAKEN,
    "AdoptStreamConnectionTestsBuilder.test_serverAddressTCP6": SOCKET_TAKEN,
    "AdoptStreamConnectionTestsBuilder.test_streamingProducer": SOCKET_TAKEN,
    "AdoptStreamConnectionTestsBuilder.test_writeSequeceWithoutWrite": SOCKET_TAKEN,
    "AdoptStreamConnectionTestsBuilder.test_writeSequenceWithUnicodeRaisesException": SOCKET_TAKEN,
    "PTYProcessTestsBuilder.test_changeUID": OTHER_USER,
    "ProcessTestsBuilder.test_changeUID": OTHER_USER,
    "SSLClientTestsMixin.test_logPrefix": LOG_CONTEXT,
    "StartTLSClientTestsMixin.test_logPrefix": LOG_CONTEXT,
    "TCP4ClientTestsBuilder.test_logPrefix": LOG_CONTEXT,
    "TCP6ClientTestsBuilder.test_logPrefix": LOG_CONTEXT,
    "TCPFDPortTestsBuilder.test_closePeerOnEMFILE": BACKLOG_WAITS,
    "TCPTransportTestsBuilder.test_streamingProducer": WRITES_AT_ONCE,
    "UNIXAdoptStreamConnectionTestsBuilder.test_ServerAddressUNIX": SOCKET_TAKEN,
    "UNIXAdoptStreamConnectionTestsBuilder.test_nonStreamingProducer": SOCKET_TAKEN,
    "UNIXAdoptStreamConnectionTestsBuilder.test_streamingProducer": SOCKET_TAKEN,
    "UNIXAdoptStreamConnectionTestsBuilder.test_writeSequeceWithoutWrite": SOCKET_TAKEN,
    "UNIXAdoptStreamConnectionTestsBuilder.test_writeSequenceWithUnicodeRaisesException": SOCKET_TAKEN,
    "UNIXFDPortTestsBuilder.test_closePeerOnEMFILE": BACKLOG_WAITS,
    "UNIXPortTestsBuilder.test_closePeerOnEMFILE": BACKLOG_WAITS,
    "UNIXTestsBuilder.test_avoidLeakingFileDescriptors": KERNEL_CLOSES,
    "UNIXTestsBuilder.test_logPrefix": LOG_CONTEXT,
}


def build_reactor(case: SynchronousTestCase) -> UvloopReactor:
    """A reactor on a new event loop, which is closed when `case` is over."""
    loop = uvloop.new_event_loop()

    def clean_up() -> None:
        loop.close()
        asyncio.set_event_loop(None)

    case.addCleanup(clean_up)
    return UvloopReactor(loop)


def builders(module_name: str) -> set[type[Any]]:
    """The builders that this module of Twisted's makes test cases of."""
    module = importlib.import_module(f"twisted.internet.test.{module_name}")
    return {
        base
        for name, case in vars(module).items()
        if inspect.isclass(case) and name.endswith("EPollReactorTests")
        for base in case.__bases__
        if issubclass(base, ReactorBuilder)
    }


def case_for(builder: type[Any]) -> type[SynchronousTestCase]:
    """A test case of `builder` for the uvloop reactor, without what is left out."""
    attributes: dict[str, Any] = {"reactorFactory": build_reactor, "timeout": TIMEOUT}
    for left_out in LEFT_OUT:
        name, _, test = left_out.partition(".")
        if name == builder.__name__:
            getattr(builder, test)  # one that Twisted has renamed is an error, not silently run
            attributes[test] = skipped(LEFT_OUT[left_out])
    return type(builder.__name__, (builder, SynchronousTestCase), attributes)


def skipped(reason: str) -> Any:
    def test(case: SynchronousTestCase) -> None:
        raise SkipTest(reason)

    return test


def run() -> dict[str, Any]:
    """Run all; how many passed, and the others by name with the traceback or the reason to skip."""
    cases = {case_for(builder) for name in MODULES for builder in builders(name)}
    loader, result = TestLoader(), TestResult()
    TestSuite([loader.loadClass(case) for case in sorted(cases, key=lambda case: case.__name__)]).run(result)
    others = {"failed": result.failures + result.errors, "skipped": result.skips}
    told = {outcome: {label(test): str(why) for test, why in found} for outcome, found in others.items()}
    return {"passed": result.successes, **told}


def label(test: Any) -> str:
    return f"{type(test).__name__}.{test.id().rpartition('.')[2]}"


if __name__ == "__main__":
    print(json.dumps(run()))
