"""What `koder-gateway check` says of files that read well, and of which the gateway would not start or not work."""

from __future__ import annotations

import os
import pwd
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from koder_gateway import checks
from koder_gateway.machine import is_local
from tests.cli.test_cli import Done, run
from tests.kit.authority import write_certificate
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.waiting import PATIENCE, until


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], Done]:
    """Checks a configuration that is written to `koder-gateway.toml` in the test's folder."""

    def check(text: str) -> Done:
        path = tmp_path / "koder-gateway.toml"
        path.write_text("[state]\ndir = 'state'\n" + text if "[state]" not in text else text)
        return run("check", path)

    return check


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user reaches, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="koder-gateway-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def dotted(text: str) -> str:
    """Keys that are written out, before any table."""
    return f"{text}\nstate.dir = 'state'\n#[state]\n"


def warned(done: Done) -> str:
    """The only warning of a check that is good."""
    assert done.code == 0, done
    (line,) = done.err.splitlines()
    assert line.startswith("warning: ")
    return line


@pytest.mark.parametrize("key", ["port", "redirect_port", "admin_port"])
@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("systemd:domain=INET", "does not say which socket"),
        ("systemd:domain=INET:index=0:name=a", "does not say which socket"),
        ("systemd:domain=INET:index=first", "is not a number"),
        ("systemd:index=0", "has no socket domain"),
    ],
)
def test_a_socket_of_systemd_s_must_be_one(check: Callable[[str], Done], key: str, endpoint: str, says: str) -> None:
    (fault,) = check(f'[listen]\n{key} = "{endpoint}"\n').faults
    assert f': listen.{key}: endpoint "{endpoint}": ' in fault
    assert says in fault
    assert check(f'[listen]\n{key} = "systemd:domain=INET:index=0"\n').code == 0


@pytest.mark.parametrize("key", ["port", "redirect_port", "admin_port"])
@pytest.mark.parametrize("kind", ["unix", "haproxy:unix", "UNIX"])
def test_a_unix_socket_needs_a_place(check: Callable[[str], Done], tmp_path: Path, key: str, kind: str) -> None:
    (tmp_path / "file").write_text("")
    long = f"{tmp_path}/{'a' * 108}"
    for path, says in (
        (f"{tmp_path}/missing/socket", f"{tmp_path}/missing is not a folder"),
        (f"{tmp_path}/file", f"{tmp_path}/file exists and is not a socket"),
        (str(tmp_path), "exists and is not a socket"),
        (long[:108], "is longer than the 107 bytes"),
    ):
        (fault,) = check(f"[listen]\n{key} = '{kind}:{path}'\n").faults
        assert f': listen.{key}: endpoint "{kind}:{path}": ' in fault
        assert says in fault
    for path in (f"{tmp_path}/socket", long[:107]):
        assert check(f"[listen]\n{key} = '{kind}:{path}'\n").code == 0
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{tmp_path}/socket")
        assert check(f"[listen]\n{key} = '{kind}:{tmp_path}/socket'\n").code == 0, "a start clears it away"


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("tcp:99999:interface=127.0.0.1", "is not a number from 0 to 65535"),
        ("haproxy:tcp:99999", "is not a number from 0 to 65535"),
        ("ssl:99999", "is not a number from 0 to 65535"),
        ("haproxy:systemd:domain=INET", "does not say which socket"),
        ("nonsense:1", "endpoint"),
    ],
)
def test_a_start_refuses_what_a_check_does(
    check: Callable[[str], Done], tmp_path: Path, endpoint: str, says: str
) -> None:
    """Of the admin port."""
    (fault,) = check(f"[listen]\nadmin_port = '{endpoint}'\n").faults
    assert f': listen.admin_port: endpoint "{endpoint}": ' in fault
    assert says in fault
    done = start(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f'koder-gateway: endpoint "{endpoint}": ')
    assert says in done.stderr


@pytest.mark.parametrize("kind", ["systemd", "haproxy:systemd"])
@pytest.mark.parametrize("which", ["index=0", "name=a"])
def test_a_start_says_that_no_socket_was_handed_over(
    check: Callable[[str], Done], tmp_path: Path, kind: str, which: str
) -> None:
    for key in ("port", "admin_port"):
        port = "" if key == "port" else "port = 'tcp:0'\n"
        assert check(f"[listen]\n{port}{key} = '{kind}:domain=INET:{which}'\n").code == 0
        done = start(tmp_path)
        assert done.returncode == 1
        assert "was inherited" in done.stderr
        assert "start the gateway by its socket unit" in done.stderr


def start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A daemon of the configuration in that folder, which is to end at once."""
    command = [Path(sys.executable).parent / "twistd", "-n", "--pidfile=", "koder-gateway"]
    return subprocess.run(
        [*command, "--config", folder / "koder-gateway.toml", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("listen", "clash"),
    [
        ('port = ["tcp:80", "ssl:80"]', True),
        ('port = ["tcp:80:interface=127.0.0.1", "haproxy:ssl:80"]', True),
        ('port = ["tls+tcp:80", "tcp:80:interface=127.0.0.1"]', True),
        ('port = "tcp:80"\nredirect_port = "tcp:80"', True),
        ('port = "tcp:80"\nadmin_port = "tcp:80:interface=127.0.0.1"', True),
        ('port = ["unix:/tmp/a", "unix:address=/tmp/a"]', True),
        ('port = ["unix:/tmp/a", "unix://tmp/a"]', True),
        ('port = ["unix:/tmp/a", "unix:/usr/../tmp/./a"]', True),
        ('port = ["unix:/tmp/a", "unix:/proc/self/root/tmp/a"]', True),
        ('port = ["tcp:80", "ssl:0080"]', True),
        ('port = ["[::1]:80", "[0:0::1]:080"]', True),
        ('port = ["tcp:80:interface=127.0.0.1", "tcp:80:interface=\\\\:\\\\:ffff\\\\:127.0.0.1"]', True),
        ('port = ["systemd:domain=INET:index=0", "tls+systemd:domain=INET:index=0"]', True),
        ('port = ["systemd:domain=INET:index=0", "systemd:domain=INET:index=00"]', True),
        ('port = [":80", "tcp:80:interface=127.0.0.1"]', True),
        ('port = ["[::]:80", "0.0.0.0:80"]', True),
        ('port = ":443"\nredirect_port = ":80"\nadmin_port = "127.0.0.1:9090"', False),
        ('port = ["tcp:0", "ssl:0"]', False),
        ('port = ["tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.2"]', False),
        ('port = ["unix:/tmp/a", "unix:/tmp/b"]', False),
        ('port = ["systemd:domain=INET:index=0", "systemd:domain=INET:name=b"]', False),
    ],
)
def test_nothing_is_listened_on_twice(check: Callable[[str], Done], listen: str, clash: bool) -> None:
    done = check(f"[listen]\n{listen}\n")
    assert done.code == int(clash), done
    if clash:
        (fault,) = done.faults
        assert ": listens on the same address as listen.port " in fault


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("tcp:80:interface=192.0.2.1", "192.0.2.1"),
        ("ssl:443:interface=192.0.2.1", "192.0.2.1"),
        ("haproxy:tcp:80:interface=192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("tcp6:80:interface=fe80\\\\:\\\\:1%nowhere0", "fe80::1%nowhere0"),
        # An interface has a name, and a port is not listened on by it.
        ("tcp:80:interface=eth0", "eth0"),
        ("ssl:443:interface=nohost.invalid", "nohost.invalid"),
        ("tcp:80:interface=localhost", ""),
        ("tcp:80:interface=127.0.0.1", ""),
        ("tcp:80:interface=127.9.9.9", ""),
        ("0.0.0.0:443", ""),
        (":443", ""),
    ],
)
@pytest.mark.parametrize("key", ["port", "redirect_port", "admin_port"])
def test_an_interface_is_one_of_this_machine_s(
    check: Callable[[str], Done], key: str, endpoint: str, host: str
) -> None:
    if key != "port" and "ssl:" in endpoint:
        endpoint = endpoint.replace("ssl:", "tcp:")
    port = "" if key == "port" else "port = 'tcp:0'\n"
    done = check(f'[listen]\n{port}{key} = "{endpoint}"\n')
    if host:
        (fault,) = done.faults
        assert f": listen.{key}: endpoint " in fault
        assert f": {host} is not an address of this machine; " in fault
    else:
        assert done.code == 0


def test_what_is_no_address_may_be_a_name_that_has_one() -> None:
    here = ["localhost", "127.0.0.1"]
    elsewhere = ["300.1.1.1", "fe80::1%nowhere0", "192.0.2.1", "eth0", "nohost.invalid", "a" * 300, ".."]
    assert [host for host in here + elsewhere if is_local(host)] == here


BARE_COLONS = [
    ("tcp:0:interface=::1", r"\:\:1"),
    ("tcp:0:interface=[::1]", r"\:\:1"),
    ("tcp:0:interface=::1:backlog=50", r"\:\:1"),
    ("tcp:interface=::1:port=0", r"\:\:1"),
    ("tcp:0:interface=fe80::1%eth0", r"fe80\:\:1%eth0"),
    ("tcp:0:interface=2001:db8:0:0:0:0:0:7", r"2001\:db8\:0\:0\:0\:0\:0\:7"),
    ("tcp:0:interface=::ffff:127.0.0.1", r"\:\:ffff\:127.0.0.1"),
    ("tcp:0:interface=::", r"\:\:"),
    ("tcp:0:interface=::nonsense", r"\:\:nonsense"),
    ("tcp6:0:interface=::1", r"\:\:1"),
    ("haproxy:tcp:0:interface=::1", r"\:\:1"),
    ("ssl:0:interface=::1", r"\:\:1"),
    ("tls:0:interface=::1", r"\:\:1"),
    ("tls+tcp:0:interface=::1", r"\:\:1"),
]


@pytest.mark.parametrize(
    ("key", "endpoint", "escaped"),
    [
        (key, *each)
        for key in ("port", "redirect_port", "admin_port")
        for each in BARE_COLONS
        if key != "redirect_port" or not each[0].startswith(("ssl", "tls"))
    ],
)
def test_an_address_s_own_colons_take_no_string_apart(
    check: Callable[[str], Done], key: str, endpoint: str, escaped: str
) -> None:
    """Twisted reads `interface=::1` as no interface, which is all of them, and a backlog of 1."""
    port = "" if key == "port" else "port = 'tcp:0:interface=127.0.0.1'\n"
    done = check(f"[listen]\n{port}{key} = '{endpoint}'\n")
    assert done.code == 1
    assert f": listen.{key}: " in done.faults[0]
    assert f" ends at its first colon; write interface={escaped}, " in done.faults[0]
    assert "every interface" not in done.err


@pytest.mark.parametrize("key", ["port", "redirect_port", "admin_port"])
def test_a_start_listens_on_no_string_taken_apart_by_an_address(tmp_path: Path, key: str) -> None:
    port = "" if key == "port" else "port = 'tcp:0:interface=127.0.0.1'\n"
    (tmp_path / "koder-gateway.toml").write_text(f"[listen]\n{port}{key} = 'tcp:0:interface=::1'\n")
    done = start(tmp_path)
    assert done.returncode == 1
    assert r"ends at its first colon; write interface=\:\:1, " in done.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        r"tcp:0:interface=\:\:1",
        r"tcp:interface=\:\:1:0",
        "tcp:interface=127.0.0.1:0",
        "tcp:0::50",
        "tcp:0:127.0.0.1:50",
        "[::1]:0",
    ],
)
def test_what_has_no_bare_colons_is_taken(check: Callable[[str], Done], endpoint: str) -> None:
    assert check(f"[listen]\nport = '{endpoint}'\n").code == 0


def test_the_advice_for_an_admin_port_on_every_interface_is_good_itself(check: Callable[[str], Done]) -> None:
    advice = warned(check("[listen]\nport = 'tcp:0'\nadmin_port = 'tcp:9100'\n"))
    for interface in (r":interface=\:\:1", ":interface=127.0.0.1"):
        assert interface in advice
        done = check(f"[listen]\nport = 'tcp:0'\nadmin_port = 'tcp:9100{interface}'\n")
        assert (done.code, done.err) == (0, "")


def test_more_connections_than_descriptors_are_a_warning(
    check: Callable[[str], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "UNIT_FOLDERS", (str(tmp_path / "usr"),))
    (tmp_path / "usr").mkdir()
    unit = tmp_path / "usr" / "koder-gateway.service"
    # Five services of 1,024 connections each, and 128 for what else is open.
    for limit, least in (("10000", 4752), ("1024:10000", 4752), ("6000", 752)):
        unit.write_text(f"[Service]\nLimitNOFILE={limit}\n")
        line = warned(check(f"[listen]\nmax_connections = {least + 1}\n"))
        assert f": listen.max_connections: {least + 1} client connections, 5120 connections to services and " in line
        assert f"LimitNOFILE in {unit} allows {limit.rpartition(':')[2]}; write {least} at most, or raise" in line
        assert check(f"[listen]\nmax_connections = {least}\n").err == ""
    unit.write_text("[Service]\nLimitNOFILE=4096\n")
    assert warned(check("[listen]\nmax_connections = 1000\n")).endswith("; raise that limit")
    assert check("[listen]\nmax_connections = 0\n").err == "", "as many as there are descriptors for"
    unit.unlink()
    assert " but this process (ulimit -Hn) allows " in warned(check("[listen]\nmax_connections = 99999999\n"))


def test_a_start_says_that_there_are_too_few_descriptors_and_what_may_be_misspelled(tmp_path: Path) -> None:
    config = configuration({"a": "http://127.0.0.1:9"}, {"listen": {"max_connections": 4000}})
    config = config.replace("[services]\n", "[services]\nidentiy = 'http://127.0.0.1:9'\n")
    with GatewayProcess(tmp_path, config, open_files=4096) as gateway:
        assert (
            ": listen.max_connections: 4000 client connections, 1024 connections to services and other"
        ) in gateway.log()
        assert ': services.identiy: is used by no route; did you mean "identity"' in gateway.log()


def test_the_state_folder_must_be_usable(check: Callable[[str], Done], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        (fault,) = check(f"[state]\ndir = '{folder}'\n").faults
        assert ": state.dir: " in fault
        assert f"{tmp_path}/file is not a folder" in fault
    assert check("[state]\ndir = 'a/b'\n").code == 0


@pytest.mark.parametrize("folder", ["/proc/nothing", "/sys/x", "/proc/a/b/c"])
def test_a_state_folder_is_where_folders_can_be_made(check: Callable[[str], Done], folder: str) -> None:
    """Also to root, to whom all of them look writable."""
    (fault,) = check(f"[state]\ndir = '{folder}'\n").faults
    assert f": state.dir: {Path(folder).parts[0]}{Path(folder).parts[1]} cannot be written; " in fault


@pytest.mark.parametrize("folder", ["/proc", "/sys"])
def test_a_log_file_is_where_files_can_be_made(check: Callable[[str], Done], folder: str) -> None:
    (fault,) = check(f"[log]\nfile = '{folder}/x.log'\n").faults
    assert f": log.file: {folder} cannot be written; " in fault


def test_what_is_tried_leaves_nothing(check: Callable[[str], Done], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "old").write_text("before\n")
    for file in ("new", "old"):
        assert check(f"[state]\ndir = 'log/state'\n[log]\nfile = 'log/{file}'\n").code == 0
    assert [(each.name, each.read_text()) for each in log.iterdir()] == [("old", "before\n")]


def test_a_log_that_is_a_pipe_stays_open_to_who_reads_it(check: Callable[[str], Done], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert check("[log]\nfile = 'pipe'\n").code == 0
        seen = select.poll()
        seen.register(reader, select.POLLIN)
        assert seen.poll(0) == [], "nobody came and went, which a reader sees as an end"
    finally:
        os.close(reader)


def test_a_misspelled_service_is_a_fault_and_one_without_a_route_a_warning(check: Callable[[str], Done]) -> None:
    (fault,) = check('[services]\nidentiy = "http://127.0.0.1:1"\n').faults
    assert ': services.identiy: is used by no route; did you mean "identity"' in fault
    assert ": services.billing: is used by no route" in warned(check('[services]\nbilling = "http://127.0.0.1:1"\n'))
    registry = '[tenants]\nregistry = "http://127.0.0.1:1/tenants"\n[services]\nbilling = "http://127.0.0.1:1"\n'
    assert check(registry).err == "", "that one has the tenants"


def test_paths_for_suspended_tenants_that_cover_every_route_are_a_warning(check: Callable[[str], Done]) -> None:
    line = ": tenants.suspended_allow: covers every route, so a suspended tenant is served like any other; "
    assert line in warned(check("[tenants]\nsuspended_allow = ['/']\n"))
    routes = (
        "[[routes]]\npath = '/v1/users'\nservice = 'identity'\n[[routes]]\npath = '/oauth'\nservice = 'identity'\n"
    )
    assert line in check(f"[tenants]\nsuspended_allow = ['/oauth', '/v1']\n{routes}").err
    assert line not in check(f"[tenants]\nsuspended_allow = ['/oauth', '/v1/user']\n{routes}").err


def test_a_limit_that_covers_no_route_is_a_warning(check: Callable[[str], Done]) -> None:
    limit = '[[limits]]\nname = "r"\nkey = ["ip"]\nrate = "1/s"\ncharge = "refusals"\n'
    limit += '[[limits]]\nname = "a"\nrate = "1/s"\npaths = '
    assert ": limits.a: matches no route: no request to /v2" in warned(check(f"{limit}['/v2', '/v1/usersmore']\n"))
    for paths in ("['/v1']", "['/v1/users/7']", "['/v2', '/v1/users']", "['/']", "[]"):
        assert check(f"{limit}{paths}\n").err == "", paths


def test_limits_of_ones_own_without_one_on_refusals_are_a_warning(check: Callable[[str], Done]) -> None:
    """They replace all that are shipped, which is easily overlooked."""
    own = '[[limits]]\nname = "login"\nrate = "1/s"\n'
    line = warned(check(own))
    assert ": limits: replace all default limits: none of traffic, refusals, login-failures, token, " in line
    assert "nothing limits refusals" in line
    assert "none of traffic, refusals, login, login-failures" in warned(check(dotted("limits = []")))
    for mode in ("enforce", "shadow"):
        refusals = f'[[limits]]\nname = "r"\nkey = ["ip"]\nrate = "1/s"\ncharge = "refusals"\nmode = "{mode}"\n'
        assert check(own + refusals).err == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("requests.max_buffered = '1KiB'", ': requests.max_buffered: "1KiB" is too small'),
        ("requests.max_buffered = '1023KiB'", 'write at least "1MiB"'),
        ("requests.max_buffered = 0", ": requests.max_buffered: "),
        ("shares.address = '0%'", ": shares.address: "),
        ("shares.tenant = '101%'", ": shares.tenant: "),
        ("requests.min_rate = '-1B'", ": requests.min_rate: "),
    ],
)
def test_what_cannot_work_is_a_fault(check: Callable[[str], Done], text: str, line: str) -> None:
    (fault,) = check(dotted(text)).faults
    assert line in fault


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("requests.max_buffered = '1MiB'", ": requests.max_buffered: 1048576 bytes are so few"),
        ("requests.max_buffered = '8MiB'", ""),
        ("requests.min_rate = 0", ": requests.min_rate: 0 lets a client hold a connection"),
        ("requests.min_rate = '1B'", ""),
        ("requests.min_rate = '8KiB'", ""),
        ("requests.min_rate = '64KiB'", ": requests.min_rate: 65536 bytes a second are more than phones reach"),
        (
            "listen.max_connections = 100\nshares.address = '1%'",
            ': shares.address: "1%" is 1 of listen.max_connections',
        ),
        (
            "listen.max_connections = 100\nshares.address = '3%'",
            ': shares.address: "3%" is 3 of listen.max_connections',
        ),
        ("listen.max_connections = 100\nshares.address = '4%'", ""),
        ("requests.max_tunnels = 8\nshares.address = '50%'\nshares.tenant = '20%'", ": shares.tenant: "),
        (
            "requests.max_tunnels = 8\nshares.tenant = '100%'",
            ': shares.address: "25%" is 2 of requests.max_tunnels (8)',
        ),
        ("requests.max_tunnels = 0", ""),
        ("requests.max_tunnels = 3", ""),
        ("services.identity = { url = 'http://127.0.0.1:1', max_connections = 10 }", ": shares.address: "),
        (
            "limits_store.url = 'redis://redis.example'",
            ': limits_store.url: "redis://redis.example:6379/0" is not encrypted',
        ),
        ("limits_store.url = 'redis://192.0.2.1'", ": limits_store.url: "),
        ("limits_store.url = 'redis://127.0.0.9'", ""),
        ("limits_store.url = 'redis://[::1]'", ""),
        ("limits_store.url = 'redis://localhost'", ""),
        ("limits_store.url = 'rediss://redis.example'", ""),
        ("limits_store.url = 'unix:/run/redis.sock'", ""),
    ],
)
def test_what_is_unwise_is_a_warning(check: Callable[[str], Done], text: str, line: str) -> None:
    if line:
        assert line in warned(check(dotted(text)))
    else:
        assert check(dotted(text)).err == ""


def test_a_start_says_what_a_check_warns_of(tmp_path: Path) -> None:
    config = configuration({"a": "http://127.0.0.1:9"}, {"requests": {"min_rate": "64KiB"}})
    with GatewayProcess(tmp_path, config) as gateway:
        assert ": requests.min_rate: 65536 bytes a second are more than phones reach" in gateway.log()


@pytest.mark.parametrize(
    ("networks", "lines"),
    [
        (["0.0.0.0/0"], ['"0.0.0.0/0" covers']),
        (["::/0"], ['"::/0" covers']),
        (["10.0.0.0/8", "::/0", "0.0.0.0/0"], ['"0.0.0.0/0" covers', '"::/0" covers']),
        (["::ffff:0:0/96"], ['"::ffff:0:0/96" covers']),
        (["2000::/3"], ['"2000::/3" covers']),
        (["128.0.0.0/1", "0.0.0.0/1"], ['"128.0.0.0/1", "0.0.0.0/1" together cover']),
        (["128.0.0.0/1", "unix:", "::ffff:0:0/97"], ['"128.0.0.0/1", "::ffff:0:0/97" together cover']),
        (["192.0.0.0/3", "128.0.0.0/2", "0.0.0.0/1"], ['"0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3" together cover']),
        (["8000::/1", "::/1"], ['"::/1" covers']),
        (
            [f"{n}.0.0.0/4" for n in range(0, 224, 16)],
            ['"0.0.0.0/4", "16.0.0.0/4", "32.0.0.0/4", "48.0.0.0/4" and 10 more together cover'],
        ),
        (["2000::/4", "3000::/4", "fd00::/8"], ['"2000::/4", "3000::/4", "fd00::/8" together cover']),
        (["10.0.0.0/8", "fd00::/8", "unix:"], []),
        (["128.0.0.0/1", "::ffff:0:0/98", "::ffff:64.0.0.0/99"], []),
        # IPv4 addresses are none of these.
        (["::/3"], []),
    ],
)
def test_proxies_that_are_everybody_are_a_warning(
    check: Callable[[str], Done], networks: list[str], lines: list[str]
) -> None:
    done = check(f"[listen]\ntrusted_proxies = {networks}\n")
    said = [line for line in done.err.splitlines() if ": listen.trusted_proxies: " in line]
    assert [line.partition(": listen.trusted_proxies: ")[2].partition(" every address")[0] for line in said] == lines
    assert done.code == 0


def test_what_is_open_to_everybody_is_a_warning(check: Callable[[str], Done]) -> None:
    for endpoint in ("tcp:9090", "tcp:9090:interface=0.0.0.0", "tcp6:9090"):
        assert ": listen.admin_port: " in warned(check(f"[listen]\nadmin_port = '{endpoint}'\n"))
    for endpoint in ("tcp:9090:interface=127.0.0.1", "unix:/tmp/admin"):
        assert check(f"[listen]\nadmin_port = '{endpoint}'\n").err == ""


def test_a_drain_that_systemd_cuts_is_a_warning(
    check: Callable[[str], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "UNIT_FOLDERS", (str(tmp_path / "usr"), str(tmp_path / "etc")))
    drain = "[timeouts]\ndrain = '45s'\n"
    assert ": timeouts.drain: 45s is not shorter than the TimeoutStopSec of the packaged unit" in warned(check(drain))
    assert check("[timeouts]\ndrain = '44s'\n").err == ""
    for folder in ("usr", "etc/koder-gateway.service.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "usr" / "koder-gateway.service").write_text("[Service]\nTimeoutStopSec=45s\n")
    override = tmp_path / "etc" / "koder-gateway.service.d" / "override.conf"
    for text, good in (("1min 30s", True), ("infinity", True), ("90", True), ("30", False), ("40s", False)):
        override.write_text(f"[Service]\nTimeoutStopSec={text}\n")
        assert (check(drain).err == "") is good, text


def test_a_certificate_that_the_base_domain_does_without_is_a_warning(
    check: Callable[[str], Done], tmp_path: Path
) -> None:
    from tests.kit.authority import Authority

    Authority(tmp_path, "Some CA")
    text = "[tls]\nclient_ca = 'some-ca.pem'\nclient_auth = "
    done = check(f"{text}{{ 'admin.id.koder.dev' = 'required' }}\n")
    assert ': tls.client_auth: "admin.id.koder.dev" requires a certificate, and X-Tenant-ID' in warned(done)
    for modes in (
        "'required'",
        "{ 'admin.id.koder.dev' = 'required', 'id.koder.dev' = 'required' }",
        "{ 'admin.id.koder.dev' = 'optional' }",
        "{ 'partner.example' = 'required' }",
    ):
        assert check(f"{text}{modes}\n").err == "", modes


@pytest.mark.parametrize(
    ("modes", "way"),
    [
        ("{ 'login.acme.example' = 'required' }", "X-Tenant-ID on the base domain"),
        ("{ '*.acme.example' = 'required' }", "X-Tenant-ID on the base domain"),
        (
            "{ 'login.acme.example' = 'required', 'id.koder.dev' = 'required' }",
            "its slug's host below id.koder.dev",
        ),
        ("{ 'login.acme.example' = 'required', 'id.koder.dev' = 'required', '*.id.koder.dev' = 'required' }", ""),
        ("{ 'login.acme.example' = 'required', 'id.koder.dev' = 'required', 'acme.id.koder.dev' = 'required' }", ""),
        ("{ 'login.acme.example' = 'required', '*' = 'required' }", ""),
        ("{ 'login.acme.example' = 'optional' }", ""),
    ],
)
def test_a_domain_s_certificate_that_another_host_does_without_is_a_warning(
    check: Callable[[str], Done], tmp_path: Path, modes: str, way: str
) -> None:
    from tests.kit.authority import Authority

    Authority(tmp_path, "Some CA")
    (tmp_path / "tenants.toml").write_text("[[tenant]]\nslug = 'acme'\ndomains = ['login.acme.example']\n")
    text = f"[tenants]\nregistry = 'tenants.toml'\n[tls]\nclient_ca = 'some-ca.pem'\nclient_auth = {modes}\n"
    if way:
        assert f" requires a certificate, and {way} reaches the same tenant without" in warned(check(text))
    else:
        assert check(text).err == ""


def test_endpoint_faults_come_with_all_the_others(check: Callable[[str], Done], tmp_path: Path) -> None:
    text = "[nonsense]\n[listen]\nport = ['nonsense:80', 'tcp:1', 'ssl:1']\nadmin_port = 'tcp:x'\n"
    lines = check(text).faults
    assert [line.split(": ")[1] for line in lines] == ["nonsense", "listen.port", "listen.port", "listen.admin_port"]
    done = subprocess.run(
        [Path(sys.executable).parent / "twistd", "-n", "koder-gateway", "--config", tmp_path / "koder-gateway.toml"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"koder-gateway: {line}" for line in lines]


ROUNDS = """
[limits_store]
url = "redis://user:secret@127.0.0.1/0"
[services]
identiy = "http://127.0.0.1:1"
auth = { url = "https://127.0.0.1:1", ca = "empty.pem" }
session = 5
[tls]
certificates = "certs"
default = "nobody"
[log]
file = "log/access.log"
access = "yes"
[listen]
port = ["ssl:99999", "nonsense", "tcp:443:interface=192.0.2.1", "unix:/nowhere/a"]
admin_port = "systemd:domain=INET"
[state]
dir = "empty.pem"
[[routes]]
path = "/a"
service = "auth"
[[routes]]
path = "/b"
service = 7
"""


def test_every_fault_is_told_at_once_and_by_a_start_too(check: Callable[[str], Done], tmp_path: Path) -> None:
    """Whatever part of the file they are in, and whoever finds them; no mending brings up another one."""
    write_certificate(tmp_path / "certs", "a.example")
    (tmp_path / "certs" / "lone.crt").write_bytes((write_certificate(tmp_path / "other", "b.example")).read_bytes())
    (tmp_path / "empty.pem").write_text("")
    lines = check(ROUNDS).faults
    said = "\n".join(lines)
    assert len(lines) == len(set(lines)) == 15, said
    assert "secret" not in said
    for told in (
        'limits_store.url: "redis://***@127.0.0.1/0" has a user or a password in it',
        'services.identiy: is used by no route; did you mean "identity"',
        "empty.pem: no certificate in it",
        "services.session: 5 is not a service",
        "lone.key: no such file",
        'tls.default: no certificate is called "nobody"',
        'port "99999" is not a number',
        '"nonsense" is not a Twisted server endpoint',
        "192.0.2.1 is not an address of this machine",
        "/nowhere is not a folder",
        "listen.admin_port: ",
        "log.access: ",
        "log.file: ",
        "state.dir: ",
        "routes[1].service: ",
    ):
        assert sum(told in each for each in lines) == 1, (told, said)
    assert start(tmp_path).stderr.splitlines() == [f"koder-gateway: {each}" for each in lines]


def test_certificates_are_looked_at_where_no_endpoint_can_be_read(
    check: Callable[[str], Done], tmp_path: Path
) -> None:
    (tmp_path / "certs").mkdir()
    lines = check("[listen]\nport = 443\n[tls]\ncertificates = 'certs'\n").faults
    assert [each.split(": ")[1] for each in lines] == ["listen.port", "tls.certificates"]


def test_a_start_tells_the_faults_of_its_command_line_with_those_of_the_file(
    check: Callable[[str], Done], tmp_path: Path
) -> None:
    """Instead of the file's endpoints, which it does not use."""
    check("[timeouts]\nhead = 5\n[listen]\nport = 'tcp:x'\nadmin_port = 'tcp:y'\n")
    done = start(tmp_path, "--port", "tcp:z", "--admin-port", "unix:/nowhere/a")
    lines = [each.removeprefix("koder-gateway: ").partition(": ")[0] for each in done.stderr.splitlines()]
    assert lines == [str(tmp_path / "koder-gateway.toml"), 'endpoint "tcp:z"', 'endpoint "unix:/nowhere/a"']


def test_a_start_that_a_service_ends_tells_the_rest_as_well(check: Callable[[str], Done], tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "certs").mkdir()
    done = check(
        "[services]\nauth = { url = 'https://127.0.0.1:1', ca = 'empty.pem' }\nidentiy = 'http://127.0.0.1:1'\n"
        "[tls]\ncertificates = 'certs'\n[listen]\nadmin_port = 'tcp:x'\n"
    )
    assert len(done.faults) == 4
    assert start(tmp_path).stderr.splitlines() == [f"koder-gateway: {each}" for each in done.faults]


KEYS = {"url": '"https://127.0.0.1:1"', "ca": '"/nope"', "client_cert": '"pair.pem"', "client_key": '"locked.pem"'}
NOT_PEM = "text.pem: no certificate in it; "
LOCKED = "locked.pem: the private key is encrypted; "
NO_CA = 'services.oauth2.ca: "/nope": no such file'


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, [NO_CA, LOCKED]),
        ({"ca": '"text.pem"'}, [NOT_PEM, LOCKED]),
        ({"ca": '"text.pem"', "client_key": ""}, [NOT_PEM, "services.oauth2.client_key: is missing"]),
        ({"ca": '"text.pem"', "client_cert": ""}, [NOT_PEM, LOCKED, "services.oauth2.client_cert: is missing"]),
        ({"client_cert": '"text.pem"'}, [NO_CA, NOT_PEM, LOCKED]),
        ({"client_key": '"other/default.pem"'}, [NO_CA, "does not match its first certificate"]),
        ({"client_key": ""}, [NO_CA, "services.oauth2.client_key: is missing"]),
        ({"url": '"ftp://a"'}, [NO_CA, LOCKED, "services.oauth2.url: "]),
        ({"url": ""}, [NO_CA, LOCKED, "services.oauth2.url: is missing"]),
        ({"url": '"http://127.0.0.1:1"'}, [NO_CA, *(f"oauth2.{key}: has no effect" for key in tuple(KEYS)[1:])]),
        ({"connect": "5", "urls": '["https://127.0.0.1:2"]'}, [NO_CA, LOCKED, "oauth2.connect: ", "oauth2.urls: "]),
        # What is misspelled is not missing.
        ({"client_key": "", "client_kye": '"locked.pem"'}, [NO_CA, 'did you mean "client_key"?']),
    ],
)
def test_no_fault_of_a_service_s_table_hides_another(
    check: Callable[[str], Done], tmp_path: Path, keys: dict[str, str], told: list[str]
) -> None:
    write_certificate(tmp_path, "gateway.example").rename(tmp_path / "pair.pem")
    write_certificate(tmp_path / "other", "other.example")
    (tmp_path / "text.pem").write_text("text")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    (tmp_path / "locked.pem").write_bytes(key)
    table = ", ".join(f"{name} = {value}" for name, value in {**KEYS, **keys}.items() if value)
    done = check(f"[services]\noauth2 = {{ {table} }}\n[listen]\nport = 'tcp:0:interface=127.0.0.1'\n")
    assert len(done.faults) == len(told), done
    for each in told:
        assert sum(each in line for line in done.faults) == 1, (each, done)
    assert all("services.oauth2" in line for line in done.faults)


def test_a_start_tells_every_fault_of_a_service_s_table(check: Callable[[str], Done], tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("text")
    write_certificate(tmp_path, "gateway.example")
    done = check(
        "[services]\nidentity = { url = 'https://127.0.0.1:1', ca = 'text.pem', client_cert = 'default.pem' }\n"
        "admin = { url = 'https://127.0.0.1:5', ca = 'text.pem' }\n"
        "[tenants]\nregistry = 'https://127.0.0.1:5/tenants'\n"
    )
    assert len(done.faults) == 3
    assert start(tmp_path).stderr.splitlines() == [f"koder-gateway: {each}" for each in done.faults]


def test_the_registry_s_files_are_told_beside_those_of_services(check: Callable[[str], Done], tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("text")
    (tmp_path / "blank.pem").write_text("")
    done = check(
        "[services]\nidentity = { url = 'https://127.0.0.1:1', ca = 'text.pem' }\n"
        "tenants = { url = 'https://127.0.0.1:5', ca = 'blank.pem' }\n"
        "[tenants]\nregistry = 'https://127.0.0.1:5/tenants'\n"
    )
    assert [line.split(": ")[1] for line in done.faults] == ["services.identity", "tenants.registry"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another's eyes")
def test_root_looks_with_the_eyes_of_the_service(reachable: Path) -> None:
    path = reachable / "koder-gateway.toml"
    path.write_text("")
    path.chmod(0o600)
    user = "nobody"
    assert pwd.getpwnam(user).pw_uid != 0
    code = (
        "import sys; from pathlib import Path; from koder_gateway import checks\n"
        f"checks.check_as_service_user.__defaults__ = ({user!r}, Path(sys.argv[1]))\n"
        "from koder_gateway.cli import main; sys.exit(main(['check', sys.argv[2]]))"
    )

    def checked(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, folder, path]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd="/")

    done = checked(reachable)
    assert done.returncode == 1
    assert done.stderr == f"{path}: permission denied; let the gateway's user read it\n"
    assert checked(reachable / "elsewhere").returncode == 0, "another configuration is read as who asks"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another's eyes")
@pytest.mark.parametrize("unit", ["", "StateDirectory=fresh-gateway\n"])
def test_root_looks_for_the_state_folder_of_the_service(reachable: Path, unit: str) -> None:
    """That of the unit, which systemd makes at the first start, else that in the user's home; never in root's."""
    home, roots, made = reachable / "home", reachable / "root", reachable / "lib"
    for folder, mode in ((home, 0o700), (roots, 0o700), (made, 0o755)):
        folder.mkdir(mode)
    user = pwd.getpwnam("nobody")
    path = reachable / "koder-gateway.toml"
    path.write_text("")
    (reachable / "koder-gateway.service").write_text(f"[Service]\n{unit}")
    code = (
        "import pwd, sys; from pathlib import Path; from koder_gateway import checks, service_unit\n"
        "folder = Path(sys.argv[1])\n"
        "checks.check_as_service_user.__defaults__ = ('nobody', folder)\n"
        "checks.UNIT_FOLDERS, service_unit.STATE = (str(folder),), folder / 'lib'\n"
        "known = pwd.struct_passwd((*pwd.getpwnam('nobody')[:5], str(folder / 'home'), ''))\n"
        "pwd.getpwnam = lambda name: known\n"
        "from koder_gateway.cli import main; sys.exit(main(['check', sys.argv[2]]))"
    )

    def check(text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text)
        return subprocess.run(
            [sys.executable, "-c", code, reachable, path],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
            env={"HOME": str(roots), "XDG_STATE_HOME": str(roots), "PATH": os.environ["PATH"], **environ},
        )

    done = check()
    if unit:
        assert (done.returncode, done.stderr) == (0, ""), "systemd will make it"
        (made / "fresh-gateway").write_text("")
        assert f"state.dir: {made}/fresh-gateway is not a folder" in check().stderr
    else:
        assert f"state.dir: {home} cannot be written" in done.stderr
        os.chown(home, user.pw_uid, user.pw_gid)
        assert check().returncode == 0
    for folder in (roots, made):
        log = f"log.file: {folder} cannot be written"
        assert log in check(f"log.file = '{folder}/access.log'\n").stderr
        assert log not in check(f"log.file = '{folder}/access.log'\nlog.access = false\n").stderr
        address = f"{folder}/socket"
        assert f"{folder} cannot be written" in check(f"listen.admin_port = 'unix:{address}'\n").stderr
    (made / "of-root.log").touch(0o600)
    assert f"log.file: {made}/of-root.log cannot be" in check(f"log.file = '{made}/of-root.log'\n").stderr
    assert f"state.dir: {roots} cannot be written" in check(f"state.dir = '{roots}/state'\n").stderr
    assert f"state.dir: {roots} cannot be written" in check(STATE_DIRECTORY=f"{roots}/state").stderr


def test_a_reload_says_which_ports_it_does_not_follow(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, configuration({})) as gateway:
        gateway.config.write_text(configuration({}, {"listen": {"port": "tcp:1", "admin_port": "tcp:2"}}))
        gateway.signal(1)
        until(lambda: "reloaded " in gateway.log(), "it is reloaded")
        assert gateway.log().count("listen.port has changed, which a reload cannot apply; restart the gateway") == 1
        assert gateway.log().count("listen.admin_port has changed") == 1
        assert "listen.redirect_port" not in gateway.log()
