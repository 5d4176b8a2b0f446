"""The registry in a file: read again when it has changed, elsewhere than on the reactor's thread, and in time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from koder_gateway.config import file_version, load_tenants
from koder_gateway.ops.counters import Counters
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.tenants.registry_cache import RegistryCache
from koder_gateway.tenants.registry_file import SECOND_LOOK, RegistryFile
from koder_gateway.tenants.registry_in_force import RegistryInForce
from tests.kit.tenants import in_order
from tests.kit.waiting import PATIENCE

REFRESH = 30.0
BASE = "id.koder.dev"


class Pool:
    """A thread pool whose work is done when the test says so; also the part of a reactor that leads to it."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[..., None], Callable[..., Any], tuple[Any, ...]]] = []

    def getThreadPool(self) -> Pool:
        return self

    def callInThreadWithCallback(self, done: Callable[..., None], job: Callable[..., Any], *words: Any) -> None:
        self._jobs.append((done, job, words))

    def callFromThread(self, call: Callable[..., Any], *words: Any) -> None:
        call(*words)

    @property
    def waiting(self) -> int:
        return len(self._jobs)

    def work(self) -> None:
        """Do the work that is the oldest."""
        done, job, words = self._jobs.pop(0)
        try:
            result = job(*words)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)


def text(*slugs: str) -> str:
    return "tenant = []\n" if not slugs else "".join(f'[[tenant]]\nslug = "{slug}"\n' for slug in slugs)


class Watched:
    """A file with tenant `a` that was read and is watched, and the lists that were read of it later."""

    def __init__(self, folder: Path, pool: Any = None) -> None:
        self.path = folder / "tenants.toml"
        self.path.write_text(text("a"))
        self.pool = Pool() if pool is None else pool
        self.counters = Counters()
        self.read: list[tuple[Tenant, ...]] = []
        self.before = Registry([Tenant("a")])
        self.most = 0.1
        self.now = 0.0
        self.file = self.watch(file_version(self.path))

    def watch(self, seen: object) -> RegistryFile:
        in_force = RegistryInForce(lambda: self.before, lambda: self.most)
        return RegistryFile(self.path, BASE, seen, in_force, self.counters, self.take, self.pool)

    def take(self, registry: Registry) -> None:
        self.before = registry
        self.read.append(in_order(registry))

    def write(self, content: str) -> None:
        """Replace the file, as whoever does it in order does it."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(content)
        fresh.replace(self.path)

    def sweep(self) -> None:
        self.file.sweep(self.now, REFRESH)

    def look_twice(self) -> None:
        """As often as it takes until a change is read."""
        self.look()
        self.now += SECOND_LOOK
        self.sweep()

    def look(self) -> None:
        """The look that is due, to its end."""
        self.sweep()
        while self.pool.waiting:
            self.pool.work()

    def refresh(self) -> int:
        """Let the next look be due; how much work came of it, which is then done."""
        self.look_twice()
        self.now += REFRESH
        waiting = self.pool.waiting
        while self.pool.waiting:
            self.pool.work()
        return int(waiting)

    @property
    def slugs(self) -> list[list[str]]:
        return [[tenant.slug for tenant in tenants] for tenants in self.read]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line that is logged of the registry, with its level."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "koder_gateway.tenants.registry_file":
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


# -- when it is read


def test_what_has_not_changed_is_not_read(watched: Watched) -> None:
    for _ in range(3):
        assert watched.refresh() == 0
    assert watched.read == []


def test_a_change_is_read_once(watched: Watched) -> None:
    watched.write('[[tenant]]\nslug = "b"\ndomains = ["b.example"]\nstatus = "suspended"\n')
    assert watched.refresh() == 1
    assert watched.read == [(Tenant("b", ("b.example",), "suspended"),)]
    assert watched.refresh() == 0
    watched.write(text())
    assert watched.refresh() == 1
    assert watched.slugs == [["b"], []], "an empty registry is one too"
    assert watched.counters.registry_failures == 0


def test_it_is_looked_at_every_so_often(watched: Watched) -> None:
    watched.sweep()
    watched.write(text("b"))
    watched.now = REFRESH - 0.25
    watched.sweep()
    assert watched.pool.waiting == 0
    watched.now = REFRESH
    watched.look()
    watched.now += SECOND_LOOK - 0.25
    watched.sweep()
    assert (watched.pool.waiting, watched.read) == (0, [])
    watched.now += 0.25
    watched.look()
    assert watched.slugs == [["b"]]


@pytest.mark.parametrize("dated", ["now", "long ago"])
def test_a_change_between_reading_and_watching(dated: str, watched: Watched) -> None:
    """Whatever time it bears: a file moved into place keeps its own."""
    seen = file_version(watched.path)
    watched.write(text("b"))
    if dated == "long ago":
        os.utime(watched.path, (0, 0))
    watched.file = watched.watch(seen)
    assert watched.refresh() == 1
    assert watched.slugs == [["b"]]
    assert watched.refresh() == 0


def test_a_file_that_is_gone_before_it_is_watched(watched: Watched) -> None:
    seen = file_version(watched.path)
    watched.path.unlink()
    watched.file = watched.watch(seen)
    watched.refresh()
    assert (watched.read, watched.counters.registry_failures) == ([], 1)
    watched.write(text("b"))
    assert watched.refresh() == 1
    assert watched.slugs == [["b"]]


def test_a_registry_that_was_never_read_is_read_at_once(watched: Watched) -> None:
    watched.file = watched.watch(None)
    assert watched.refresh() == 1
    assert watched.slugs == [["a"]]


@pytest.mark.parametrize("how", ["another file", "another size", "another time"])
def test_what_tells_a_change(how: str, watched: Watched) -> None:
    before = watched.path.stat()
    times = (before.st_atime_ns, before.st_mtime_ns)
    if how == "another file":
        watched.write(text("b"))
    elif how == "another size":
        watched.path.write_text(text("a", "longer"))
    else:
        watched.path.write_text(text("a").replace("a", "a"))
        times = (times[0], times[1] + 1)
    os.utime(watched.path, ns=times)
    assert watched.refresh() == 1
    assert len(watched.read) == 1


def test_one_reading_at_a_time(watched: Watched) -> None:
    """A change while the file is being read is read after that."""
    watched.write(text("b"))
    watched.look_twice()
    watched.now = 10 * REFRESH
    watched.sweep()
    watched.now += SECOND_LOOK
    watched.sweep()
    assert watched.pool.waiting == 1
    watched.pool.work()
    watched.write(text("c"))
    assert watched.refresh() == 1
    assert watched.slugs[-1] == ["c"]


def test_the_reactors_thread_does_not_read(watched: Watched) -> None:
    watched.write(text("b"))
    watched.look_twice()
    assert watched.read == []
    watched.path.unlink()  # nothing of it was in memory yet
    watched.pool.work()
    assert watched.read == []
    watched.refresh()
    assert (watched.read, watched.counters.registry_failures) == ([], 1)


# -- what was not written to its end


SUSPENDED = '[[tenant]]\nslug = "a"\nstatus = "suspended"\n'


def test_a_file_that_is_still_being_written_is_not_read(watched: Watched) -> None:
    """Cut before its last line it would switch a tenant on."""
    watched.write(SUSPENDED)
    assert watched.refresh() == 1
    for length in (len(SUSPENDED) - 24, len(SUSPENDED) - 12):
        watched.path.write_text(SUSPENDED[:length])
        watched.look()
        watched.now += SECOND_LOOK
        assert len(watched.read) == 1
    watched.path.write_text(SUSPENDED + "# done\n")
    watched.refresh()
    assert [tenant.status for tenants in watched.read for tenant in tenants] == ["suspended"] * 2


def test_what_changes_while_it_is_read_is_looked_at_again(watched: Watched) -> None:
    watched.write(text("b"))
    watched.look_twice()
    watched.write(text("c"))
    watched.pool.work()
    assert (watched.read, watched.counters.registry_failures) == ([], 0)
    assert watched.refresh() == 1
    assert watched.slugs == [["c"]]


def test_a_list_that_was_written_in_place_loses_nobody(watched: Watched, log: list[str]) -> None:
    many = [f"t{number}" for number in range(100)]
    watched.write(text("a", *many))
    watched.refresh()
    watched.path.write_text(text("a", *many[:-1]))
    assert watched.refresh() == 1
    assert len(watched.read) == 1
    (line,) = log
    assert f"{watched.path}: lacks 1 of 101 tenants, and was written in place" in line
    assert "rename" in line
    assert watched.counters.registry_failures == 1
    for _ in range(2):
        assert watched.refresh() == 0, "it is said once"
    watched.path.write_text(text("a", *many, "more"))
    watched.refresh()
    assert len(watched.read[-1]) == 102, "what lacks nobody may be written in place"
    watched.write(text("a", *many[:-1]))
    watched.refresh()
    assert len(watched.read[-1]) == 100, "a file that was renamed is whole"


def test_contents_that_change_behind_the_same_date_do_not_agree(watched: Watched) -> None:
    """Dates of files are as coarse as the kernel's ticks, and a preallocated file keeps its size."""
    watched.write(text("a", "b"))
    times = (watched.path.stat().st_atime_ns, watched.path.stat().st_mtime_ns)
    watched.look()
    watched.path.write_text(text("a", "c"))
    os.utime(watched.path, ns=times)
    watched.now += SECOND_LOOK
    watched.look()
    assert watched.read == []
    watched.now += SECOND_LOOK
    watched.look()
    assert watched.slugs == [["a", "c"]]


MANY = [f"t{number}" for number in range(100)]


@pytest.fixture
def full(watched: Watched) -> Watched:
    """A watched file of a hundred tenants, which are in force."""
    watched.write(text("a", *MANY))
    watched.refresh()
    assert len(watched.read) == 1
    return watched


@pytest.mark.parametrize("missed", [False, True], ids=["between looks", "seen to be missing"])
def test_a_file_that_is_removed_and_made_anew_loses_nobody(full: Watched, missed: bool, log: list[str]) -> None:
    """It is another file, but nothing says that it was written to its end."""
    # As editors do that keep the old one; else its inode might be given out again.
    full.path.rename(full.path.with_suffix(".old"))
    if missed:
        full.refresh()
    full.path.write_text(text("a", *MANY[:-1]))
    full.refresh()
    assert len(full.read) == 1
    assert "lacks 1 of 101 tenants, and was written in place" in log[-1]
    full.write(text("a", *MANY[:-1]))
    full.refresh()
    assert len(full.read[-1]) == 100, "a file that was renamed is whole"


def test_after_a_faulty_file_was_renamed_a_list_in_place_loses_nobody(full: Watched, log: list[str]) -> None:
    full.write(FAULTY)
    full.refresh()
    full.path.write_text(text("a", *MANY[:-1]))
    full.refresh()
    assert len(full.read) == 1
    assert "lacks 1 of 101 tenants, and was written in place" in log[-1]


def test_a_file_that_was_renamed_and_then_written_loses_nobody(full: Watched) -> None:
    full.write(text("a", *MANY, "more"))
    full.look()
    full.path.write_text(text("a", *MANY[:-1]))
    full.refresh()
    full.refresh()
    assert len(full.read) == 1


def test_a_touch_does_not_make_a_renamed_file_doubtful(full: Watched) -> None:
    full.write(text("a", *MANY[:-1]))
    full.look()
    os.utime(full.path, (1, 1))
    full.refresh()
    full.refresh()
    assert len(full.read[-1]) == 100


def test_where_nobody_tells_how_files_come_another_file_was_renamed(full: Watched) -> None:
    """As for links that clusters exchange in a folder beside, and file systems of other machines."""
    folder = full.path.parent / "release"
    for release in ("one", "two"):
        (full.path.parent / release).mkdir()
    folder.symlink_to("one")
    full.path = folder / "tenants.toml"
    full.path.write_text(text("a", *MANY))
    full.file = full.watch(file_version(full.path))
    full.refresh()
    (full.path.parent.parent / "two" / "tenants.toml").write_text(text("a", *MANY[:-1]))
    link = folder.with_suffix(".new")
    link.symlink_to("two")
    link.replace(folder)
    full.refresh()
    assert len(full.read[-1]) == 100


def test_a_list_that_lacks_too_many_is_refused_whole(watched: Watched, log: list[str]) -> None:
    many = [f"t{number}" for number in range(100)]
    watched.write(text(*many))
    watched.refresh()
    watched.write(text(*many[11:], "new"))
    watched.refresh()
    (line,) = log
    assert 'lacks 11 of 100 tenants, more than tenants.max_loss = "10%" allows; ' in line
    assert "SIGHUP" in line
    assert (len(watched.read), watched.counters.registry_failures) == (1, 1)
    watched.write(text(*many[10:]))
    watched.refresh()
    assert len(watched.read[-1]) == 90
    watched.most = 1.0
    watched.write(text())
    watched.refresh()
    assert watched.read[-1] == ()


# -- what cannot be read


FAULTY = '[[tenant]]\nslug = "UP"\n[[tenant]]\nslug = "b"\nstatsu = "active"\n'


def test_a_bad_file_leaves_the_tenants_and_is_told_once(watched: Watched, log: list[str]) -> None:
    watched.write(FAULTY)
    assert watched.refresh() == 1
    assert (watched.read, watched.counters.registry_failures) == ([], 1)
    assert len(log) == 2
    for line, key in zip(log, ("tenant[0].slug: ", "tenant[1].statsu: "), strict=True):
        assert line.startswith(f"error: registry not read again, the previous tenants stay: {watched.path}: {key}")
    for _ in range(3):
        assert watched.refresh() == 0
    assert (watched.counters.registry_failures, len(log)) == (1, 2)
    watched.write(text("b"))
    assert watched.refresh() == 1
    assert watched.slugs == [["b"]]


@pytest.mark.parametrize("content", ["[[tenant", "", "[[tenant]]\n", "tenant = 1\n"])
def test_what_is_no_registry(content: str, watched: Watched, log: list[str]) -> None:
    """Among these is a file that was cut short while it was written: it must not mean that there are no tenants."""
    watched.write(content)
    assert watched.refresh() == 1
    assert (watched.read, watched.counters.registry_failures) == ([], 1)
    assert log


def test_a_pipe_in_place_of_the_file_is_told_and_does_not_end_the_watch(watched: Watched, log: list[str]) -> None:
    """Opened, it would wait for somebody who writes to it."""
    pipe = watched.path.with_suffix(".pipe")
    os.mkfifo(pipe)
    pipe.replace(watched.path)
    for _ in range(3):
        watched.refresh()
    (line,) = log
    assert line.endswith(f"{watched.path}: is a pipe, a socket or a device; name a file")
    assert watched.counters.registry_failures == 1
    watched.write(text("a", "b"))
    watched.refresh()
    assert watched.slugs == [["a", "b"]]


def test_a_domain_within_the_base_domain_is_a_fault(watched: Watched, log: list[str]) -> None:
    watched.write(f'[[tenant]]\nslug = "b"\ndomains = ["c.{BASE}"]\n')
    watched.refresh()
    assert watched.read == []
    assert f"c.{BASE}" in log[0]


def test_a_file_that_vanishes_is_told_once_and_comes_back(watched: Watched, log: list[str]) -> None:
    watched.path.unlink()
    assert watched.refresh() == 1
    for _ in range(2):
        assert watched.refresh() == 0
    assert (watched.read, watched.counters.registry_failures, len(log)) == ([], 1, 1)
    watched.write(text("b"))
    assert watched.refresh() == 1
    assert watched.slugs == [["b"]]


@given(st.lists(st.sampled_from(["bad", "gone", "b", "c", "same"]), max_size=8))
def test_the_tenants_are_always_those_of_the_last_good_file(
    tmp_path_factory: pytest.TempPathFactory, changes: list[str]
) -> None:
    watched = Watched(tmp_path_factory.mktemp("registry"))
    good = []
    faults = 0
    there = True
    for change in changes:
        if change == "gone":
            faults += there
            there = False
            watched.path.unlink(missing_ok=True)
        elif change != "same":
            there = True
            faults += change == "bad"
            good += [[change]] if change != "bad" else []
            watched.write(FAULTY if change == "bad" else text(change))
        watched.refresh()
        assert watched.slugs == good
        assert watched.counters.registry_failures == faults


# -- what has a fault


def test_a_bad_entry_is_left_out_and_told(full: Watched, log: list[str]) -> None:
    """It counts as lost, so a file written in place may have none that was good before."""
    full.write(text("a", *MANY[1:]) + '[[tenant]]\nslug = "t0"\nstatsu = "x"\n')
    full.refresh()
    (line,) = log
    assert line.startswith(f"error: left out of the registry: {full.path}: tenant[100].statsu: is an unknown key; ")
    assert len(full.read[-1]) == 100
    assert (full.counters.registry_skipped, full.counters.registry_failures) == (1, 0)
    full.write(text("a", *MANY))
    full.refresh()
    assert (len(full.read[-1]), full.counters.registry_skipped) == (101, 0)
    full.path.write_text(text("a", *MANY[1:]) + '[[tenant]]\nslug = "t0"\nstatsu = "x"\n')
    full.refresh()
    assert (len(full.read[-1]), full.counters.registry_failures) == (101, 1)


def test_whether_the_tenants_are_those_of_the_present_file(watched: Watched) -> None:
    """However long it stays refused, and until it is good again."""
    assert not watched.counters.registry_unread
    watched.write("[[tenant")
    watched.refresh()
    watched.refresh()
    assert (watched.counters.registry_failures, watched.counters.registry_unread) == (1, True)
    watched.write(text("b"))
    watched.refresh()
    assert not watched.counters.registry_unread
    away = watched.path.with_suffix(".away")
    watched.path.rename(away)
    watched.refresh()
    assert watched.counters.registry_unread
    away.rename(watched.path)
    watched.refresh()
    assert not watched.counters.registry_unread


def test_a_file_with_too_many_bad_entries_is_refused_whole(full: Watched, log: list[str]) -> None:
    full.most = 0.05
    bad = "".join(f'[[tenant]]\nslug = "-{number}"\n' for number in range(6))
    full.write(text("a", *MANY) + bad)
    full.refresh()
    assert len(full.read) == 1
    assert log[-1].endswith(': has faults in 6 of 107 entries, more than tenants.max_loss = "5%" allows')
    full.write(text("a", *MANY) + bad[: bad.index("-5") - 20])
    full.refresh()
    assert (len(full.read[-1]), full.counters.registry_skipped) == (101, 5)


OURS = '[[tenant]]\nslug = "a"\ndomains = ["x.example"]\n'
THEIRS = '[[tenant]]\nslug = "b"\ndomains = ["x.example", "y.example"]\n'


def test_a_domain_that_is_claimed_stays_with_the_one_that_had_it(watched: Watched, log: list[str]) -> None:
    watched.write(OURS)
    watched.refresh()
    watched.write(THEIRS + OURS)
    watched.refresh()
    assert watched.read[-1] == (Tenant("a", ("x.example",)), Tenant("b", ("y.example",)))
    (line,) = log
    assert 'the domain "x.example" is claimed by several tenants ("b", "a"); it stays with "a"' in line


@pytest.mark.parametrize(("source", "owner"), [("", "a"), ("another file", "")])
def test_so_it_does_after_a_restart(source: str, owner: str, watched: Watched, log: list[str]) -> None:
    state = watched.path.parent / "state"
    before = Registry([Tenant("a", ("x.example",))])
    RegistryCache(state, source or str(watched.path), BASE).write(before)
    watched.write(THEIRS + OURS)
    found = load_tenants(watched.path, BASE)
    assert (found.registry.at(b"x.example"), len(found.faults)) == (None, 1)
    watched.before = found.registry
    watched.file = RegistryFile(
        watched.path,
        BASE,
        file_version(watched.path),
        RegistryInForce(lambda: watched.before, lambda: watched.most),
        watched.counters,
        watched.take,
        watched.pool,
        RegistryCache(state, str(watched.path), BASE),
        contested=True,
    )
    watched.refresh()
    watched.refresh()
    tenant = watched.before.at(b"x.example")
    assert ("" if tenant is None else tenant.slug) == owner
    assert len(log) == (1 if owner else 0)
    kept = RegistryCache(state, str(watched.path), BASE).read()
    assert in_order(kept) == in_order(watched.before)


# -- the end


@pytest.mark.parametrize("content", [text("b"), FAULTY], ids=["good", "bad"])
def test_what_is_read_too_late_is_nothing(content: str, watched: Watched, log: list[str]) -> None:
    watched.write(content)
    watched.look_twice()
    watched.file.stop()
    watched.pool.work()
    assert (watched.read, watched.counters.registry_failures, log) == ([], 0, [])


def test_nothing_is_read_after_the_end(watched: Watched) -> None:
    watched.file.stop()
    watched.write(text("b"))
    assert watched.refresh() == 0
    watched.file.stop()


# -- in real threads


@pytest_twisted.ensureDeferred
async def test_with_the_reactors_own_pool(tmp_path: Path, log: list[str]) -> None:
    watched = Watched(tmp_path, reactor)
    threads: list[threading.Thread] = []
    tenants: list[tuple[Tenant, ...]] = []

    def read(found: Registry) -> None:
        threads.append(threading.current_thread())
        tenants.append(in_order(found))

    in_force = RegistryInForce(lambda: watched.before, lambda: 1.0)
    file = RegistryFile(watched.path, BASE, file_version(watched.path), in_force, watched.counters, read, reactor)

    now = 0.0

    async def eventually(condition: Callable[[], object]) -> None:
        ends = time.monotonic() + PATIENCE
        nonlocal now
        while not condition():
            assert time.monotonic() < ends
            file.sweep(now, REFRESH)
            now += SECOND_LOOK
            await deferLater(reactor, 0.001, lambda: None)  # type: ignore[arg-type]

    watched.write(text("b", "c"))
    await eventually(lambda: tenants)
    assert tenants == [(Tenant("b"), Tenant("c"))]
    assert threads == [threading.current_thread()]
    watched.write(FAULTY)
    await eventually(lambda: watched.counters.registry_failures)
    assert len(tenants) == 1
    assert len(log) == 2
    watched.write(text("d"))
    await eventually(lambda: len(tenants) == 2)
    file.stop()
