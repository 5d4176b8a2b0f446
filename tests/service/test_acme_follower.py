"""Which names are ordered, by whom, and what becomes of the process: with a fake one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from koder_gateway.acme.messages import Standing
from koder_gateway.config import AcmeSettings, Settings
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.service import acme_follower
from koder_gateway.service.acme_follower import AcmeFollower, wanted_names
from koder_gateway.tenants.remote_registry import UnreadTenants
from koder_gateway.tls.certificates import self_signed
from koder_gateway.tls.sni_index import SniIndex

ACME = AcmeSettings(directory="https://ca.example/directory", accept_terms=True, names=("id.koder.dev",))
TENANTS = (
    Tenant("koder", ("login.koder.example", "xn--mller-kva.example")),
    Tenant("closed", ("closed.example",), "suspended"),
    Tenant("plain"),
)


class Helper:
    """What an `AcmeHelper` is told."""

    def __init__(self, terms):
        self.terms = terms
        self.told = []
        self.orders = Counter()
        self.standing = None
        self.over = False
        self.ended = self.swept = 0

    def want(self, wanted, added, removed):
        self.told.append((list(wanted), sorted(added), sorted(removed)))

    def sweep(self, now):
        self.swept += 1

    def end(self, now):
        self.ended += 1


class Scene:
    """A follower of some tenants' names."""

    def __init__(self, worker=0, redirects=False):
        self.helpers = []
        self.clock = Clock()
        self.follower = AcmeFollower(self.clock, self.clock.seconds, worker, redirects, self._start)

    def _start(self, terms):
        self.helpers.append(Helper(terms))
        return self.helpers[-1]

    def follow(self, acme=ACME, tenants=TENANTS, policy=None, **settings):
        registry = Registry(tenants)
        self.composition = SimpleNamespace(
            settings=replace(Settings(), acme=acme, **settings),
            policy=SimpleNamespace(registry=registry, tenants=policy),
        )
        self.follower.follow(self.composition)
        return self

    def sweep(self):
        self.follower.sweep(self.clock.seconds(), True)
        return self

    @property
    def told(self):
        return self.helpers[-1].told


@pytest.fixture
def log():
    seen = []

    def observe(event):
        seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


WANTED = ["id.koder.dev", "login.koder.example", "xn--mller-kva.example"]


def test_the_domains_of_active_tenants_and_the_operator_s_names_are_wanted():
    scene = Scene().follow().sweep()
    ((wanted, added, removed),) = scene.told
    assert sorted(wanted) == added == WANTED
    assert removed == []
    scene.sweep()
    assert len(scene.told) == 1


def test_a_process_with_nothing_to_order_is_told_that_too():
    scene = Scene().follow(replace(ACME, names=()), ()).sweep()
    assert scene.told == [([], [], [])]


def test_changes_are_told_as_such_and_the_newest_are_last():
    scene = Scene().follow().sweep()
    first = scene.told[0][0]
    more = (Tenant("koder", ("login.koder.example", "new.example")), Tenant("closed", ("closed.example",)))
    scene.follow(tenants=more).sweep()
    wanted, added, removed = scene.told[1]
    assert (added, removed) == (["closed.example", "new.example"], ["xn--mller-kva.example"])
    assert wanted[:2] == [name for name in first if name != "xn--mller-kva.example"]
    assert set(wanted[2:]) == set(added)


def test_the_same_names_are_not_told_again():
    scene = Scene().follow().sweep()
    scene.follow(tenants=(*TENANTS, Tenant("more"))).sweep()
    assert len(scene.told) == 1


def test_an_unread_registry_is_not_an_empty_one():
    scene = Scene().follow(tenants=(), policy=UnreadTenants()).sweep()
    assert scene.told == []
    scene.follow().sweep()
    assert scene.told[0][1] == WANTED


def test_an_open_registry_has_no_domains():
    scene = Scene().follow(tenants=None).sweep()
    assert scene.told[0][0] == ["id.koder.dev"]


def test_names_with_a_certificate_of_the_operator_are_not_ordered(tmp_path):
    scene = Scene().follow()
    certificates = SniIndex([self_signed(tmp_path, "koder.example")])
    scene.follower.operators = lambda: certificates
    scene.sweep()
    assert sorted(scene.told[0][0]) == ["id.koder.dev", "xn--mller-kva.example"]
    scene.follower.operators = lambda: None
    scene.sweep()
    assert scene.told[1][1:] == (["login.koder.example"], [])


@pytest.mark.parametrize("name", ["localhost", "192.0.2.1", "under_score.example", "a..example"])
def test_names_that_no_authority_issues_for_are_not_wanted(name):
    assert wanted_names(Registry([Tenant("a", (name,))]), (), None) == []


def test_one_worker_orders_for_all():
    for worker, count in ((0, 1), (1, 1), (2, 0), (3, 0)):
        scene = Scene(worker).follow().sweep()
        assert len(scene.helpers) == count
        assert scene.follower.on == bool(count)


def test_nothing_is_started_without_a_directory():
    scene = Scene().follow(AcmeSettings()).sweep()
    assert scene.helpers == []
    assert set(scene.follower.orders.values()) == {0}


def test_without_its_packages_there_is_one_line_and_the_gateway_serves(monkeypatch, log):
    monkeypatch.setattr(acme_follower, "acme_packages_fault", lambda: "needs packages; install them")
    scene = Scene().follow().sweep()
    scene.follow().sweep()
    assert scene.helpers == []
    assert log == ["acme.directory needs packages; install them; no certificates are ordered"]


def test_http_01_without_a_redirect_port_is_one_line(log):
    http = replace(ACME, challenge="http-01")
    assert Scene().follow(http).helpers == []
    assert len(log) == 1
    assert "redirect" in log[0]
    (helper,) = Scene(redirects=True).follow(http).helpers
    assert helper.terms.check_port == 80


def test_other_settings_have_another_process_which_hears_everything():
    scene = Scene().follow().sweep()
    first = scene.helpers[0]
    first.orders["issued"] = 2
    scene.follow(replace(ACME, rate=7)).sweep()
    assert (first.ended, len(scene.helpers)) == (1, 2)
    assert scene.helpers[1].terms.rate == 7
    assert scene.told[0][1] == WANTED
    scene.helpers[1].orders["issued"] = 3
    assert scene.follower.orders["issued"] == 5
    first.over = True
    scene.sweep()
    swept = first.swept
    scene.sweep()
    assert first.swept == swept
    assert scene.follower.orders["issued"] == 5


def test_the_next_process_waits_until_the_last_one_has_ended():
    scene = Scene().follow().sweep()
    scene.follow(replace(ACME, rate=7)).sweep().sweep()
    assert scene.helpers[1].swept == 0
    scene.helpers[0].over = True
    scene.sweep()
    assert scene.helpers[1].swept == 1


def test_names_alone_need_no_other_process():
    scene = Scene().follow().sweep()
    scene.follow(replace(ACME, names=("other.example",))).sweep()
    assert len(scene.helpers) == 1
    assert scene.told[1][1:] == (["other.example"], ["id.koder.dev"])


def test_a_reload_ends_it():
    scene = Scene().follow().sweep()
    scene.follow(AcmeSettings()).sweep()
    assert scene.helpers[0].ended == 1
    assert not scene.follower.on


def test_the_gateway_s_end_waits_for_the_process():
    scene = Scene().follow().sweep()
    over = []
    scene.follower.close(succeed(None)).addCallback(over.append)
    scene.clock.advance(0.1)
    assert (scene.helpers[0].ended, over) == (1, [])
    scene.helpers[0].over = True
    scene.clock.advance(0.1)
    assert over


def test_without_a_process_the_end_waits_for_nothing():
    others = Deferred()
    assert Scene().follow(AcmeSettings()).follower.close(others) is others


def test_figures_are_those_of_the_process():
    scene = Scene().follow().sweep()
    assert set(scene.follower.names.values()) == {0}
    scene.helpers[0].standing = Standing(waiting=3, held=1, issued=7, failed=2, next_renewal=9.0)
    assert scene.follower.names == {"waiting": 3, "held": 1, "ordering": 0, "issued": 7, "failed": 2}
    assert scene.follower.next_renewal == 9.0
