"""The process over the workers: it starts them, starts those again that die, and passes on what it is told.

It serves no client. Workers are forks of it, so that they share its memory, and a worker that is started later serves
the settings that are in force, whatever the file says meanwhile. It never runs a reactor: neither that nor threads
survive a fork.
"""

from __future__ import annotations

import functools
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..config import TimeoutSettings
from ..ops.console import ERROR, INFO, WARNING
from ..ops.control_socket import ControlSocket, refusal_of
from ..ops.event_log import write_line
from ..ops.notify import Notifier
from .bound_ports import BoundPort
from .channel import Channel, Message, channel_pair
from .ended_processes import ended_processes
from .generation import NONE, Generation, OldWorkers, become
from .ready_events import handle_ready
from .rehearsal import Rehearsal
from .reload_round import ReloadRound
from .seats import Seat, WorkerSeat
from .signal_reader import SignalReader
from .status_line import StatusLine
from .totals import Totals
from .watchdog import Watchdog

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_ENDS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
# Seconds beyond the drain after which a worker that has not ended is killed.
_GRACE: Final = 10.0


class Supervisor:
    """`reload` reads the configuration again and returns the reasons why it is refused. `timeouts` returns those in
    force: how long workers may take to end, and how long they may hang. `ports` are bound, and stay open here;
    `before` is the generation before, whose workers end once all of this one serve."""

    def __init__(
        self,
        count: int,
        notifier: Notifier,
        reload: Callable[[], list[str]],
        timeouts: Callable[[], TimeoutSettings],
        ports: Sequence[BoundPort],
        before: Generation = NONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._notifier = notifier
        self._reload = reload
        self._timeouts = timeouts
        self._ports = ports
        self._before = before
        self._old = OldWorkers(before.workers)
        warn = functools.partial(self._say, level=WARNING)
        self._watchdog = Watchdog(notifier, self._ending, lambda: timeouts().worker, warn, bool(self._old))
        self._rehearsal = Rehearsal()
        self._renews = False
        self._selector = selectors.DefaultSelector()
        self._totals = Totals(count)
        self._seats = [Seat(number) for number in range(1, count + 1)]
        self._status = StatusLine(notifier, self._seats)
        self._served = False
        self._deadline: float | None = None
        self._code: int | None = None
        self._round = ReloadRound()
        self._reload_again = False
        self._control: ControlSocket | None = None

    def run(self, hangup: bool = False) -> WorkerSeat | int:
        """Supervise until everything has ended. Returns the exit code; and in each worker, its seat. `hangup`: a
        reload has been asked for already."""
        self._reload_again = hangup
        self._take_signals()
        self._take_requests()
        while True:
            for seat in self._due():
                made = self._start(seat)
                if made is not None:
                    return made
            if self._code is not None and not self._pids():
                return self._code
            handle_ready(self._selector, self._timeout())
            self._look()
            self._watchdog.look(self._seats, self._clock())
            self._status.look(self._clock())

    # -- signals

    def _take_signals(self) -> None:
        # The generation before has blocked them.
        self._signals = SignalReader(_SIGNALS)
        self._selector.register(self._signals, selectors.EVENT_READ, self._signalled)

    def _signalled(self) -> None:
        for number in self._signals.receive():
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in _ENDS:
            self._end()
        elif number == signal.SIGHUP:
            self._ask_reload()
        elif number == signal.SIGUSR2:
            self._renews = True
            self._renew()
        else:
            for pid in self._pids():
                os.kill(pid, number)

    def _take_requests(self) -> None:
        """Reload for those who wait for the verdict (`koder-gateway reload`)."""
        try:
            self._control = ControlSocket(self._ask_reload, self._before.control)
        except OSError as error:
            self._say(f"`koder-gateway reload` cannot ask this process: {error.strerror}", WARNING)
            return
        self._selector.register(self._control, selectors.EVENT_READ, self._control.receive)

    # -- workers

    def _running(self) -> Iterable[Seat]:
        return [seat for seat in self._seats if seat.pid]

    def _pids(self) -> list[int]:
        """The processes of all workers, also of those of the generation before."""
        return [*(seat.pid for seat in self._running()), *self._old.pids]

    def _due(self) -> Iterable[Seat]:
        """The workers to start now. The first one goes ahead: what stops it would stop all, and is said once."""
        if self._code is not None:
            return []
        seats = self._seats if self._served else self._seats[:1]
        return [seat for seat in seats if not seat.pid and seat.due <= self._clock()]

    def _timeout(self) -> float | None:
        times = [self._watchdog.due, self._status.due, self._round.due, self._old.due]
        if self._code is None:
            times += [seat.due for seat in self._seats if not seat.pid and (self._served or seat.number == 1)]
        elif self._deadline is not None:
            times.append(self._deadline)
        first = min(times)
        return None if first == math.inf else max(0.0, first - self._clock())

    def _start(self, seat: Seat) -> WorkerSeat | None:
        """Start a worker; returns its seat in the new process, None in this one."""
        ours, theirs = channel_pair()
        # A signal that came to the child before it has its own handlers would be taken for one of this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        seat.begin(self._clock())
        try:
            pid = os.fork()
        except OSError as error:
            theirs.close()
            ours.close()
            self._died(seat, f"cannot be started: {error.strerror}")
            pid = -1
        if pid == 0:
            self._become_worker(ours)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return WorkerSeat(seat.number, seat.run, theirs, self._totals.pages, self._notifier.listened)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid > 0:
            theirs.close()
            seat.pid, seat.channel = pid, ours
            self._watchdog.started(seat, self._clock())
            self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(seat))
        return None

    def _become_worker(self, ours: Channel) -> None:
        """Give up what is the supervisor's, in the new process."""
        self._signals.close()
        self._selector.close()
        if self._control is not None:
            self._control.close()
        self._old.close()
        for channel in (ours, *(seat.channel for seat in self._running())):
            if channel is not None:
                channel.close()

    def _hear(self, seat: Seat) -> None:
        """A worker has said something, or ended."""
        channel = seat.channel
        assert channel is not None, "it is registered as long as there is one"
        messages = channel.receive()
        if messages is None:
            self._leave(seat)
            return
        for message in messages:
            self._on_message(seat, message)

    def _on_message(self, seat: Seat, message: Message) -> None:
        self._watchdog.heard(seat, message.get("notify", ""), self._clock())
        if "figures" in message:
            self._status.heard(seat, message["figures"])
        elif "refusals" in message:
            self._watchdog.answered(seat, self._clock())
            self._judged(seat, message["refusals"])
        elif message.get("notify") == "READY=1" and not seat.ready:
            seat.ready = self._served = True
            self._totals.publish(self._status.ready)
            if self._status.complete:
                self._notifier.ready(str(self._status))
                if self._old:
                    self._say("a new generation serves, and the one before ends", INFO)
                    self._old.end("leave", self._clock() + self._before.ending)
                self._go_on()

    def _go_on(self) -> None:
        """Do what has been asked for meanwhile."""
        if self._reload_again:
            self._ask_reload()
        self._renew()

    def _leave(self, seat: Seat) -> None:
        """Hear no more of a worker; SIGCHLD follows."""
        if seat.channel is not None:
            self._selector.unregister(seat.channel)
            seat.channel.close()
            seat.channel = None

    def _reap(self) -> None:
        """Take note of processes that have ended."""
        for pid, code in ended_processes():
            fault = self._rehearsal.ended(pid, code)
            if fault is not None:
                self._rehearsed(fault)
            if self._old.ended(pid):
                self._renew()
            for seat in self._seats:
                if seat.pid == pid:
                    if seat.channel is not None:
                        # What it said last.
                        self._hear(seat)
                    self._leave(seat)
                    self._ended(seat, code)

    def _ended(self, seat: Seat, code: int) -> None:
        pid, seat.pid = seat.pid, 0
        ready, seat.ready = seat.ready, False
        self._totals.fold(seat.number)
        self._judged(seat)
        if self._code is not None:
            self._code = self._code or (1 if code else 0)
            return
        if code == 1 and not self._served:
            # It has said why.
            self._give_up(1)
            return
        self._died(seat, f"(process {pid}) {seat.fate(code)}", "" if ready else " before it was ready")

    def _died(self, seat: Seat, how: str, when: str = "") -> None:
        pause = seat.died(self._clock())
        self._totals.restarts += 1
        self._totals.publish(self._status.ready)
        if seat.hopeless and not self._status.ready:
            self._say(f"worker {seat.number} {how}{when}; it dies again and again, so the gateway ends", ERROR)
            self._give_up(1)
            return
        again = f"in {pause:.1f} s" if pause else "at once"
        self._say(f"worker {seat.number} {how}{when}; it is started again {again}", WARNING)
        self._notifier.status(str(self._status))

    # -- the end

    def _end(self) -> None:
        """Let the workers end in order; asked twice, at once."""
        if self._code is None:
            self._notifier.stopping()
            self._give_up(0)
        else:
            self._kill()

    def _give_up(self, code: int) -> None:
        self._code = code
        self._deadline = self._clock() + self._ending()
        for port in self._ports:
            port.stopListening()
        self._old.end()
        self._rehearsal.stop()
        for seat in self._running():
            if seat.channel is not None:
                seat.channel.send(do="end")

    def _ending(self) -> float:
        """How many seconds a worker may take to end."""
        return self._timeouts().drain + _GRACE

    def _look(self) -> None:
        """Wait no longer for what is late."""
        now = self._clock()
        if self._round.late(now):
            self._decide()
        if now >= self._old.due:
            self._say("workers of the generation before have not ended in time and are killed", WARNING)
            self._old.kill()
        if self._deadline is not None and now >= self._deadline:
            self._say("workers have not ended in time and are killed", WARNING)
            self._kill()

    def _kill(self) -> None:
        self._code, self._deadline = 1, None
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)

    # -- reloads

    def _ask_reload(self) -> None:
        """Begin a reload; during one, or before all workers are ready, do it afterwards."""
        if self._code is not None:
            return
        if self._round or not self._status.complete:
            self._reload_again = True
            return
        self._reload_again = False
        self._notifier.reloading()
        if self._control is not None:
            self._control.begun()
        self._round.begin(self._reload(), self._running(), self._clock())
        self._watchdog.asked(self._running(), self._round.due)
        if not self._round:
            self._decide()

    def _judged(self, seat: Seat, refusals: Sequence[str] | None = None) -> None:
        """A worker has said what it thinks of a reload, or will not any more."""
        if self._round.judged(seat, refusals):
            self._decide()

    def _decide(self) -> None:
        """All have said what they think of a reload."""
        refusals, how = self._round.refusals, refusal_of(self._round.partly)
        self._totals.decided(refusals)
        for line in refusals:
            self._say(f"{how}: {line}", ERROR)
        if refusals:
            self._notifier.ready(how if self._round.partly else "reload refused; serving the previous configuration")
        else:
            self._say("reloaded by all workers", INFO)
            self._notifier.ready(str(self._status))
        if self._control is not None:
            self._control.decided(refusals or None, self._round.partly)
        self._go_on()

    # -- generations

    def _renew(self) -> None:
        """Begin the next generation, once all workers of this one serve, and nothing else is under way."""
        ready = self._status.complete and not self._round and not self._old and not self._rehearsal
        if not self._renews or not ready or self._code is not None:
            return
        self._renews = False
        try:
            self._rehearsal.begin(self._ports)
        except OSError as error:
            self._say(f"no new generation: it cannot be tried: {error.strerror}", ERROR)

    def _rehearsed(self, fault: str) -> None:
        """Become the next generation if it could start."""
        if self._code is not None:
            return
        if fault:
            self._say(f"no new generation: {fault}; this one serves on", ERROR)
            # What was asked for meanwhile may be about what has been mended.
            self._renew()
            return
        self._notifier.reloading("a new generation starts")
        workers = [(seat.pid, seat.channel) for seat in self._running() if seat.channel is not None]
        try:
            become(self._ports, workers, _SIGNALS, self._unheard, self._ending(), self._control)
        except OSError as error:
            self._say(f"no new generation: {error.strerror}", ERROR)
            self._notifier.ready(str(self._status))

    def _unheard(self) -> list[int]:
        """The signals for the next generation: those that nobody has handled yet, and those whose work waits."""
        waiting = self._signals.receive()
        if self._round or self._reload_again:
            waiting.append(signal.SIGHUP)
        if self._renews:
            waiting.append(signal.SIGUSR2)
        return waiting

    @staticmethod
    def _say(line: str, level: int) -> None:
        write_line(line, level, __name__)
