"""What holds orders back: names that lead elsewhere, the rate, the authority's patience, a disk that is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.acme_gateways import Stage, thorough
from tests.kit.clients import BASE_DOMAIN
from tests.kit.faulty_authority import Fault
from tests.kit.waiting import until

pytestmark = thorough

ALPHA, BETA, GAMMA = "login.alpha.example", "id.beta.example", "gamma.example"
# An address of this machine at which no gateway listens.
ELSEWHERE = "127.0.0.77"


@pytest.mark.parametrize("http", [False, True], ids=["tls-alpn-01", "http-01"])
def test_names_that_do_not_lead_here_are_held(tmp_path: Path, http: bool) -> None:
    tenants = {"alpha": [ALPHA], "beta": [BETA], "gamma": [GAMMA]}
    held = {ALPHA: ((ELSEWHERE,), ELSEWHERE), GAMMA: ((), "does not exist")}
    with Stage(tmp_path) as stage:
        for name, (addresses, _) in held.items():
            stage.names.hosts[name] = addresses
        with stage.gateway(tenants, http=http) as gateway:
            gateway.wait_until_served(BETA)
            for name, (_, said) in held.items():
                gateway.wait(gateway.is_in(name, "held"), "it is held")
                record = gateway.record(name)
                assert said in record["last_fault"], record
                assert record["advice"], record
        assert stage.authority.ordered() == [BETA]
        stage.names.hosts.clear()
        gateway.forget_waits()
        with stage.gateway(tenants, http=http) as gateway:
            gateway.wait_until_served(*held, BETA)
            assert sorted(stage.authority.ordered()[1:]) == sorted(held)


@pytest.mark.parametrize("http", [False, True], ids=["tls-alpn-01", "http-01"])
def test_a_name_that_answers_leads_here(tmp_path: Path, http: bool) -> None:
    with Stage(tmp_path) as stage:
        # So no address is known to be this gateway's.
        stage.names.hosts[BASE_DOMAIN] = (ELSEWHERE,)
        with stage.gateway({"alpha": [ALPHA]}, http=http) as gateway:
            gateway.wait_until_served(ALPHA)
            until(lambda: ALPHA in gateway.log(), "its certificate is told")
            # It was not held before.
            assert gateway.log().count(ALPHA) == 1


def test_slow_validations_are_waited_for(tmp_path: Path) -> None:
    names = [f"n{number}.example" for number in range(6)]
    with Stage(tmp_path, slowness=5) as stage, stage.gateway({"alpha": names}) as gateway:
        gateway.wait_until_served(*names)
        # No order was given up, and none was sent twice.
        assert sorted(stage.authority.ordered()) == names
        assert stage.authority.count("challenge") >= len(names)


def test_a_name_server_that_is_silent_holds_nobody_up(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.names.silent = True
        with stage.gateway({"alpha": [ALPHA]}) as gateway:
            gateway.wait(gateway.is_in(ALPHA, "held"), "it is held")
            assert gateway.ask_admin("/readyz")[0] == 200
            assert stage.authority.ordered() == []


def test_orders_stay_within_the_rate(tmp_path: Path) -> None:
    tenants = {f"t{number}": [f"t{number}.example"] for number in range(20)}
    with Stage(tmp_path, bad_nonces=0) as stage:
        with stage.gateway(tenants, acme={"rate": 4}) as gateway:
            gateway.wait(lambda: gateway.count("issued") == 4, "as many are issued as may be")
        # The hour goes on after a restart.
        tenants["new"] = ["new.example"]
        with stage.gateway(tenants, acme={"rate": 4}) as gateway:
            gateway.wait(lambda: "new.example" in gateway.records(), "the new one is known")
            gateway.wait(lambda: gateway.acme_process, "it has its process")
            gateway.kill_acme()
            gateway.wait(lambda: gateway.acme_process, "it is started again")
            assert len(stage.authority.ordered()) == 4
        with stage.gateway(tenants, acme={"rate": 5}) as gateway:
            gateway.wait(lambda: gateway.count("issued") == 1, "one more is issued")
            # The newest one.
            assert stage.authority.ordered()[-1] == "new.example"
            assert len(stage.authority.ordered()) == 5


def test_an_authority_that_hangs_is_given_up(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.authority.faults += [Fault("new-order"), Fault("new-order", b"HTTP/1.1 200 OK\r\n\r\n", endless=True)]
        with stage.gateway({"alpha": [ALPHA]}) as gateway:
            stage.authority.wait_for("new-order")
            assert gateway.ask_admin("/readyz")[0] == 200
            gateway.wait(lambda: gateway.record(ALPHA).get("last_fault"), "it is given up", 120)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of half a mebibyte."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _may_mount() -> bool:
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="needs root, to mount a small file system")
def test_a_full_disk_keeps_what_is_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk), Stage(tmp_path, bad_nonces=0) as stage:
        sections = {"state": {"dir": str(disk)}}
        with stage.gateway({"alpha": [ALPHA]}, sections=sections) as gateway:
            (first,) = gateway.wait_until_served(ALPHA)
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            gateway.register({"alpha": [ALPHA], "beta": [BETA]})
            gateway.wait(lambda: "No space left" in gateway.log() or "full" in gateway.log(), "the log says so")
            assert gateway.serves(ALPHA) == first
            assert gateway.ask_admin("/readyz")[0] == 200
            (disk / "filler").unlink()
        gateway.forget_waits()
        with stage.gateway({"alpha": [ALPHA], "beta": [BETA]}, sections=sections) as gateway:
            shown = gateway.wait_until_served(ALPHA, BETA)
            assert shown[0] == first
            until(lambda: gateway.is_in(BETA, "issued")(), "its record is there")
