"""The names of a gateway on their way, as a play on a real folder: the threads' part is the test's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography import x509

from koder_gateway.acme.coordinator import Coordinator
from koder_gateway.acme.faults import Fault, OrderError, refused, unreachable
from koder_gateway.acme.issued import Issued, new_key, with_chain
from koder_gateway.acme.known_names import LeftNames
from koder_gateway.acme.layout import Layout, NameRecord, read_record, read_records
from koder_gateway.acme.messages import Names, Progress, Standing
from koder_gateway.acme.reporting import MAX_LINES, Report
from koder_gateway.acme.state_folder import StateFolder
from koder_gateway.acme.storage import StorageError
from tests.acme.test_issued import certificate

DAY = 86400.0
REJECTED = refused("incorrectResponse", "the challenge is not answered", status=403, name="a.example")


class Work:
    """Notes what is to be done."""

    def __init__(self) -> None:
        self.begun: list[NameRecord] = []
        self.asked: list[list[str]] = []

    def begin(self, record: NameRecord) -> None:
        self.begun.append(record)

    def ask(self, records: list[NameRecord]) -> None:
        self.asked.append([record.name for record in records])


class Play:
    """A process, with the test's clock."""

    def __init__(
        self,
        folder: Path,
        owner: str = "me",
        now: float = 1e9,
        rate: int = 50,
        settings: tuple[str, str] = ("there", "settings"),
    ) -> None:
        self.now = now
        self.said: list[Progress] = []
        self.layout = Layout(folder)
        self.storage = StateFolder(self.layout, owner)
        self.coordinator = Coordinator(
            self.storage, Report(self.said.append), rate, lambda: self.now, lambda: 0.5, settings
        )
        self.work = self.coordinator.work = Work()

    def names(self, *names: str, removed: tuple[str, ...] = ()) -> None:
        self.coordinator.names(Names(list(names), list(removed)))
        self.turn()

    def turn(self, seconds: float = 0.0) -> list[str]:
        """Let time pass; the names that are begun by that."""
        self.now += seconds
        before = len(self.work.begun)
        self.coordinator.turn()
        return [record.name for record in self.work.begun[before:]]

    def issue(self, name: str, life: float = 90 * DAY) -> None:
        assert self.coordinator.may_order(name)
        self.coordinator.issued(name, Issued("Test CA", self.now, self.now + life, "a.b"))
        self.coordinator.finished()

    @property
    def lines(self) -> list[str]:
        self.turn(1.0)
        return [f"{event.level}: {event.text}" for progress in self.said for event in progress.events]

    @property
    def standing(self) -> Standing:
        self.turn(1.0)
        return [progress.standing for progress in self.said if progress.standing is not None][-1]

    def record(self, name: str) -> NameRecord:
        found = read_record(self.layout.record(name))
        assert found is not None
        return found


def test_nothing_is_begun_before_all_names_are_known(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.coordinator.names(Names(["a.example"], [], False))
    assert play.turn() == []
    play.coordinator.names(Names(["b.example"], [], True))
    assert sorted(play.turn()) == ["a.example", "b.example"]
    assert play.work.begun[0].name == "b.example"


def test_an_order_is_kept_step_by_step(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example")
    assert play.coordinator.may_order("a.example")
    assert (play.record("a.example").state, play.storage.pace().times) == ("ordering", [play.now])
    play.coordinator.ordered("a.example", "https://acme.example/order/1")
    assert play.record("a.example").order_url == "https://acme.example/order/1"
    play.coordinator.issued("a.example", Issued("Test CA", play.now, play.now + 90 * DAY, "a.b"))
    play.coordinator.finished()
    record = play.record("a.example")
    assert (record.state, record.order_url, record.issuer) == ("issued", "", "Test CA")
    assert record.next_renewal == pytest.approx(play.now + 58.5 * DAY)
    assert play.lines == ["info: a.example has its certificate, by Test CA, until 2001-12-08 01:46 UTC"]
    assert play.standing.issued == 1
    assert [progress.orders for progress in play.said if progress.orders] == [{"issued": 1}]
    assert [progress.changed for progress in play.said if progress.changed] == [True]


def test_the_next_process_goes_on(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example", "b.example")
    assert play.coordinator.may_order("a.example")
    play.coordinator.ordered("a.example", "https://acme.example/order/1")
    play.coordinator.failed("b.example", REJECTED)
    again = Play(tmp_path, now=play.now + 1)
    again.names("a.example", "b.example")
    (taken,) = again.work.begun
    assert (taken.name, taken.order_url) == ("a.example", "https://acme.example/order/1")
    assert again.turn(700.0) == ["b.example"]


def test_two_gateways_order_once(tmp_path: Path) -> None:
    first, second = Play(tmp_path, "first"), Play(tmp_path, "second")
    first.names("a.example")
    second.storage._lease._ended = lambda process: False
    second.names("a.example")
    assert (len(first.work.begun), len(second.work.begun)) == (1, 0)
    assert not second.standing.leads
    first.coordinator.end()
    assert second.turn(3.0) == ["a.example"]
    assert second.standing.leads


def test_who_has_lost_the_lease_orders_nothing_more(tmp_path: Path) -> None:
    first, second = Play(tmp_path, "first"), Play(tmp_path, "second")
    first.names("a.example")
    second.now += 40.0
    second.names("a.example")
    assert [record.name for record in second.work.begun] == ["a.example"]
    first.now += 40.0
    for step in (first.coordinator.check, first.coordinator.may_order):
        with pytest.raises(OrderError) as told:
            step("a.example")
        assert told.value.fault.result == "abandoned"


def test_a_name_is_not_begun_again_before_its_thread_has_seen_the_end_of_the_lease(tmp_path: Path) -> None:
    first, second = Play(tmp_path, "first"), Play(tmp_path, "second")
    first.names("a.example")
    second.now += 40.0
    second.names("a.example")
    assert first.turn(42.0) == []
    second.coordinator.end()
    assert first.turn(3.0) == []
    first.coordinator.failed("a.example", Fault("abandoned", "name", "", ""))
    first.coordinator.finished()
    assert first.turn(3.0) == ["a.example"]


def test_a_removed_name_is_given_up_and_its_certificate_stays_until_it_ends(tmp_path: Path) -> None:
    play = Play(tmp_path)
    key = new_key("ecdsa")
    play.storage.keep_certificate(
        "a.example", with_chain("a.example", key, certificate(key, "a.example"), time.time())[0]
    )
    play.now = (
        x509.load_pem_x509_certificate(certificate(key, "a.example")).not_valid_after_utc.timestamp() - 10 * DAY
    )
    play.names("a.example")
    play.names(removed=("a.example",))
    with pytest.raises(OrderError):
        play.coordinator.check("a.example")
    assert list(read_records(play.layout)) == []
    play.turn(4000.0)
    assert play.layout.certificate("a.example").exists()
    play.turn(11 * DAY)
    play.turn(4000.0)
    assert not play.layout.certificate("a.example").exists()


def test_a_name_that_comes_back_still_waits_for_what_has_failed(tmp_path: Path) -> None:
    """As that of a tenant that was suspended."""
    play = Play(tmp_path)
    play.names("a.example", "b.example")
    for name in ("a.example", "b.example"):
        play.coordinator.finished()
        play.coordinator.failed(name, refused("caa", "it forbids this authority", status=403, name=name))
    play.coordinator.ordered("a.example", "https://acme.example/order/1")
    play.names(removed=("a.example",))
    assert play.turn(10.0) == []
    play.names("a.example")
    record = play.record("a.example")
    assert (record.attempts, record.order_url, len(play.work.begun)) == (1, "", 2)
    assert sorted(play.turn(600.0)) == ["a.example", "b.example"]


def test_of_names_that_have_left_only_so_many_are_known() -> None:
    left = LeftNames(2)
    left.keep(NameRecord(name="well.example", first_seen=1.0))
    for name in ("a.example", "b.example", "c.example"):
        left.keep(NameRecord(name=name, first_seen=1.0, attempts=1))
    assert [left.take(name) is not None for name in ("well.example", "a.example", "b.example", "c.example")] == [
        False,
        False,
        True,
        True,
    ]
    assert left.take("c.example") is None


def test_a_certificate_is_found_again_without_its_record(tmp_path: Path) -> None:
    play = Play(tmp_path)
    key = new_key("ecdsa")
    pem, issued = with_chain("a.example", key, certificate(key, "a.example"), time.time())
    play.storage.keep_certificate("a.example", pem)
    play.now = issued.not_before + DAY
    play.names("a.example")
    assert play.work.begun == []
    assert play.record("a.example").not_after == issued.not_after
    play.layout.certificate("a.example").unlink()
    again = Play(tmp_path, now=play.now)
    again.names("a.example")
    assert [record.name for record in again.work.begun] == ["a.example"]
    assert again.work.begun[0].not_after == 0


def test_what_is_wrong_is_told_once(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example")
    for _ in range(3):
        play.coordinator.held("a.example", "a.example leads elsewhere", "mend it")
        play.coordinator.finished()
        play.turn(4000.0)
    play.coordinator.held("a.example", "a.example does not exist", "mend it")
    assert play.lines == [
        "warn: a.example waits: a.example leads elsewhere; mend it",
        "warn: a.example waits: a.example does not exist; mend it",
    ]
    assert play.record("a.example").advice == "mend it"


def test_an_authority_that_is_away_is_told_once_and_when_it_is_back(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names(*(f"n{number}.example" for number in range(4)))
    for record in list(play.work.begun):
        play.coordinator.failed(record.name, unreachable("https://acme.example/d: it cannot be reached"))
        play.coordinator.finished()
    assert len(play.lines) == 1
    assert (
        "error: no certificates are ordered for 30 seconds: the authority fails: https://acme.example/d: it cannot"
        in play.lines[0]
    )
    assert play.standing.paused_until > play.now
    assert play.storage.pace().failures == 1
    again = Play(tmp_path, now=play.now)
    again.names(*(f"n{number}.example" for number in range(4)))
    assert again.work.begun == []
    (name,) = again.turn(4000.0)
    again.coordinator.failed(name, unreachable("https://acme.example/d: it cannot be reached"))
    again.coordinator.finished()
    (name,) = again.turn(4000.0)
    again.issue(name)
    assert again.lines[-1] == "info: certificates are ordered again"
    assert again.storage.pace().failures == 0


def test_a_thousand_failures_are_few_lines(tmp_path: Path) -> None:
    play = Play(tmp_path, rate=5000)
    play.names(*(f"n{number}.example" for number in range(200)))
    done = 0
    while done < 200:
        for record in play.work.begun[done:]:
            play.coordinator.held(record.name, f"{record.name} leads elsewhere", "mend it")
            play.coordinator.finished()
            done += 1
        play.turn(0.1)
    lines = play.lines
    assert len(lines) == MAX_LINES
    play.turn(61.0)
    assert "warn: 180 more lines about names are left out; see koder-gateway certificates" in play.lines


def test_a_renewal_follows_the_authoritys_window(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example")
    play.issue("a.example")
    play.turn(1.0)
    assert play.work.asked == [["a.example"]]
    play.turn(1.0)
    assert len(play.work.asked) == 1
    window = (play.now + 3600.0, play.now + 7200.0)
    play.coordinator.suggested("a.example", window, "https://acme.example/why", 600.0)
    play.coordinator.asked()
    assert play.record("a.example").next_renewal == sum(window) / 2
    assert (
        "warn: the authority asks for a renewal of a.example; it says why at https://acme.example/why" in play.lines
    )
    play.turn(700.0)
    assert len(play.work.asked) == 2
    play.coordinator.suggested("a.example", None, "", None)
    play.coordinator.asked()
    assert play.record("a.example").window == window
    assert play.turn(5000.0) == ["a.example"]
    play.issue("a.example")
    play.turn()
    assert [progress.orders for progress in play.said if progress.orders] == [{"issued": 1}, {"renewed": 1}]
    assert play.record("a.example").window is None


def test_a_renewal_that_fails_keeps_the_old_one_and_says_so(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example")
    play.issue("a.example", 6 * DAY)
    assert play.turn(4 * DAY) == ["a.example"]
    ends = play.record("a.example").not_after
    while play.now < ends - 1.2 * DAY:
        play.coordinator.failed("a.example", REJECTED)
        play.coordinator.finished()
        while not play.turn(300.0):
            pass
    lines = play.lines
    assert any(
        line.startswith("warn: the certificate of a.example is not renewed, and stays until ") for line in lines
    )
    overdue = [line for line in lines if line.startswith("error: the certificate of a.example ends in ")]
    assert len(overdue) == 1
    assert "and is not renewed: the challenge is not answered (incorrectResponse); let each address" in overdue[0]
    assert play.record("a.example").not_after == ends


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Play(tmp_path)
    play.names("a.example")

    def full(what: object) -> None:
        raise StorageError("/state/acme/rate.json: No space left on device")

    monkeypatch.setattr(play.storage, "keep_pace", full)
    monkeypatch.setattr(play.storage, "keep_record", full)
    with pytest.raises(StorageError):
        play.coordinator.may_order("a.example")
    play.coordinator.failed("a.example", Fault("broken", "local", "no space", "make room"))
    play.coordinator.finished()
    for _ in range(20):
        play.turn(5.0)
    (line,) = [line for line in play.lines if "cannot be kept" in line]
    assert line.startswith("error: the state of certificates cannot be kept: /state/acme/rate.json: No space left on")


def test_a_clock_that_is_set_back_holds_up_nothing_for_longer_than_a_day(tmp_path: Path) -> None:
    play = Play(tmp_path, rate=1)
    play.names("a.example")
    assert play.coordinator.may_order("a.example")
    play.coordinator.failed("a.example", REJECTED)
    play.coordinator.finished()
    play.turn(-365 * DAY)
    assert play.turn(DAY) == ["a.example"]


def test_a_certificate_that_was_renewed_early_is_left_alone_for_a_while(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.names("a.example")
    renewed = 0
    for _ in range(10):
        play.coordinator.issued("a.example", Issued("CA", play.now, play.now + 90 * DAY, "id"))
        play.coordinator.finished()
        play.coordinator.suggested("a.example", (1.0, 2.0), "", None)
        renewed += bool(play.turn(60.0))
        if not play.work.begun[renewed:]:
            break
    # The first one at once, as the authority wants; the next one not again.
    assert renewed == 1
    assert play.turn(DAY / 2) == ["a.example"]


ACCOUNT = refused("externalAccountRequired", "an account is needed", status=403)


def play_after(folder: Path, fault: Fault, settings: tuple[str, str], held: bool = False) -> list[str]:
    """The names that a process with these settings begins with, a moment after the last one had a fault."""
    before = Play(folder)
    before.names("a.example")
    if held:
        before.coordinator.held("a.example", "it leads elsewhere", "")
    else:
        before.coordinator.failed("a.example", fault)
    before.coordinator.finished()
    before.coordinator.end()
    after = Play(folder, "other", now=before.now + 1, settings=settings)
    after.names("a.example")
    return [record.name for record in after.work.begun]


@pytest.mark.parametrize(
    ("fault", "settings", "begun"),
    [
        (ACCOUNT, ("there", "settings"), False),
        (ACCOUNT, ("there", "corrected"), True),
        (unreachable("nobody answers"), ("there", "settings"), False),
        (unreachable("nobody answers"), ("elsewhere", "settings"), True),
        # What the authority asks for is obeyed, and what it says of one name; another one has not said it.
        (refused("rateLimited", "slow down", status=429, after=3600.0), ("there", "corrected"), False),
        (refused("rateLimited", "slow down", status=429), ("there", "corrected"), False),
        (refused("rateLimited", "slow down", status=429, after=3600.0), ("elsewhere", "settings"), True),
        (REJECTED, ("there", "corrected"), False),
        (REJECTED, ("elsewhere", "settings"), True),
    ],
)
def test_nothing_waits_for_settings_that_were_corrected(
    tmp_path: Path, fault: Fault, settings: tuple[str, str], begun: bool
) -> None:
    assert play_after(tmp_path, fault, settings) == ["a.example"] * begun


def test_a_name_that_is_held_is_looked_at_once_the_checks_are_corrected(tmp_path: Path) -> None:
    assert play_after(tmp_path / "same", ACCOUNT, ("there", "settings"), held=True) == []
    assert play_after(tmp_path / "other", ACCOUNT, ("there", "corrected"), held=True) == ["a.example"]


def test_an_order_at_another_authority_is_not_gone_on_with(tmp_path: Path) -> None:
    before = Play(tmp_path)
    before.names("a.example")
    assert before.coordinator.may_order("a.example")
    before.coordinator.ordered("a.example", "https://there.example/order/1")
    before.coordinator.end()
    for settings, url in (
        (("there", "corrected"), "https://there.example/order/1"),
        (("elsewhere", "corrected"), ""),
    ):
        after = Play(tmp_path, f"after {settings[0]}", now=before.now + 1, settings=settings)
        after.names("a.example")
        (record,) = after.work.begun
        assert record.order_url == url
        after.coordinator.finished()
        after.coordinator.end()
