"""The watch over certificates: when it looks, where, what it hands on, and how the keys of tickets change."""

from __future__ import annotations

import threading

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.tls.certificate_store import StoreChanges
from koder_gateway.tls.certificate_watcher import CertificateWatcher, WatchedContexts
from koder_gateway.tls.certificates import CertificateError, self_signed
from koder_gateway.tls.contexts import ServerContexts
from koder_gateway.tls.sni_index import SniIndex
from koder_gateway.tls.ticket_contexts import TICKETS
from tests.tenants.test_registry_file import Pool
from tests.tls.test_contexts import Peer, begun, resumed

NOTHING = object()


class Script:
    """A store that finds what it is told to, and notes how it was asked."""

    def __init__(self, *looks):
        self.looks = list(looks)
        self.asked = []
        self.stopped = False

    def stop(self):
        self.stopped = True

    def look(self, now, settled=False):
        self.asked.append(settled)
        look = self.looks.pop(0) if self.looks else StoreChanges()
        if isinstance(look, Exception):
            raise look
        return look


@pytest.fixture
def made(tmp_path):
    return lambda domain: self_signed(tmp_path, domain)


@pytest.fixture
def lines():
    """What is logged, each with its level."""
    seen = []

    def observe(event):
        seen.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def pool():
    return Pool()


def watched(made, *looks, text=""):
    return WatchedContexts(text, Script(*looks), ServerContexts([made("a.example")]))


def watch_of(pool, *each):
    watch = CertificateWatcher(pool)
    watch.watched.extend(each)
    return watch


def test_it_looks_elsewhere_than_on_the_reactor_s_thread_and_not_twice_at_once(made, pool):
    one = watched(made)
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    watch.sweep(100.0)
    assert (pool.waiting, one.store.asked) == (1, [])
    pool.work()
    assert (pool.waiting, one.store.asked) == (0, [False])


def test_it_looks_again_after_a_pause(made, pool):
    one = watched(made)
    watch = watch_of(pool, one)
    for now, waiting in ((10.0, 1), (10.5, 0), (10.9, 0), (11.0, 1), (11.9, 0), (15.0, 1)):
        watch.sweep(now)
        assert pool.waiting == waiting, now
        if waiting:
            pool.work()


def test_what_takes_long_is_done_less_often_and_what_is_unsettled_soon(made, pool, monkeypatch):
    one = watched(made)
    watch = watch_of(pool, one)
    for took, unsettled, pause in ((0.0, False, 1.0), (0.04, False, 2.0), (5.0, False, 3.0), (5.0, True, 1.0)):
        watch._found(([StoreChanges(unsettled=unsettled)], took), [(one, one.store)])
        assert watch._pause == pause


def test_what_has_changed_serves_and_is_said(made, pool, lines):
    certificates = [made("a.example"), made("b.example")]
    one = watched(made, StoreChanges(SniIndex(certificates), ["an error {x}"], ["a warning"], faulty=2))
    other = watched(made, StoreChanges(), text="ssl:1")
    watch = watch_of(pool, one, other)
    watch.sweep(0.0)
    pool.work()
    assert one.contexts.certificates == tuple(certificates)
    assert (one.faulty, other.faulty) == (2, 0)
    assert lines == ["info: certificates read again: 2", "error: an error {x}", "warn: a warning"]


def test_a_line_says_whose_certificate_it_is_about(made, pool, lines):
    watch = watch_of(pool, watched(made, StoreChanges(errors=["broken"]), text="ssl:1:privateKey=x"))
    watch.sweep(0.0)
    pool.work()
    assert lines == ['error: endpoint "ssl:1:privateKey=x": broken']


def test_certificates_that_cannot_serve_after_all_leave_those_before(made, pool, lines, monkeypatch):
    one = watched(made, StoreChanges(SniIndex([made("b.example")])))
    monkeypatch.setattr(one.contexts, "_begin", refuse)
    before = one.contexts.names
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    pool.work()
    assert one.contexts.names is before
    assert lines == ["error: no use; the previous certificates stay"]


def refuse(*words):
    raise CertificateError("no use")


def test_who_asks_has_everything_read_at_once(made, pool):
    one = watched(made)
    watch = watch_of(pool, one)
    watch.again()
    pool.work()
    assert one.store.asked == [True]


def test_who_asks_in_the_midst_of_a_look_gets_another_one_after_it(made, pool):
    one = watched(made)
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    watch.again()
    watch.again()
    assert pool.waiting == 1
    pool.work()
    pool.work()
    assert (pool.waiting, one.store.asked) == (0, [False, True])


def test_what_was_read_of_a_place_that_is_another_one_now_is_not_taken(made, pool):
    one = watched(made, StoreChanges(SniIndex([made("b.example")]), ["old news"]))
    before = one.contexts.names
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    one.store = Script()
    pool.work()
    assert one.contexts.names is before


def test_after_the_end_nothing_is_looked_at_or_taken(made, pool):
    one = watched(made, StoreChanges(SniIndex([made("b.example")])))
    before = one.contexts.names
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    watch.stop()
    assert one.store.stopped
    pool.work()
    assert one.contexts.names is before
    watch.again()
    watch.sweep(100.0)
    assert pool.waiting == 0


def test_a_look_that_fails_is_logged_and_tried_again_later(made, pool, logged_errors):
    one = watched(made, RuntimeError("nobody thought of this"))
    watch = watch_of(pool, one)
    watch.sweep(0.0)
    pool.work()
    (event,) = logged_errors.take()
    assert "could not be checked" in formatEvent(event)
    watch.sweep(59.0)
    assert pool.waiting == 0
    watch.sweep(60.0)
    pool.work()
    assert one.store.asked == [False, False]


def test_nothing_to_watch_needs_no_thread(pool):
    CertificateWatcher(pool).sweep(0.0)
    CertificateWatcher(pool).again()
    assert pool.waiting == 0


def test_a_reactor_without_threads_looks_itself(made):
    one = watched(made)
    watch = watch_of(object(), one)
    watch.sweep(0.0)
    watch.sweep(1.0)
    assert one.store.asked == [False, False]


def test_the_keys_of_tickets_change_twice_a_day(made, pool):
    one = watched(made)
    watch = watch_of(pool, one)

    def resumes(now):
        watch.sweep(now)
        return resumed(Peer(one.contexts, context=context, name=b"a.example", session=session).handshake())

    watch.sweep(1000.0)
    context, session = begun(one.contexts, 0, b"a.example")
    assert resumes(1000.0 + TICKETS - 1)
    context, session = begun(one.contexts, 0, b"a.example")
    assert not resumes(1000.0 + TICKETS)
    context, session = begun(one.contexts, 0, b"a.example")
    assert resumes(1000.0 + 2 * TICKETS - 1)
    context, session = begun(one.contexts, 0, b"a.example")
    assert not resumes(1000.0 + 2 * TICKETS)


@pytest_twisted.ensureDeferred
async def test_a_real_thread_looks(made):
    one = watched(made)
    threads = []

    class Noting(Script):
        def look(self, now, settled=False):
            threads.append(threading.current_thread())
            return StoreChanges(SniIndex([made("b.example")]))

    one.store = Noting()
    watch = watch_of(reactor, one)
    watch.sweep(0.0)
    while one.contexts.certificates[0].name != "b.example":
        await deferLater(reactor, 0.01, lambda: None)
    assert threads
    assert threads[0] is not threading.current_thread()
