"""Configuration: what a file gives, and what each fault in it is told as."""

# One case, one line.
# ruff: noqa: E501

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, Settings, TimeoutSettings, load, loading, schema, tenants_schema
from koder_gateway.config.document import read_document
from koder_gateway.config.faults import shown
from koder_gateway.config.health_entries import HealthSettings
from koder_gateway.config.limits_store import StoreUrl
from koder_gateway.config.misplaced_keys import TENANT_KEYS
from koder_gateway.policy.limit_rules import LimitRule
from koder_gateway.policy.limits import Limiter
from koder_gateway.policy.routing import Route
from koder_gateway.policy.tenants import Tenant

Faults = Callable[[str], list[str]]
STATE = {"STATE_DIRECTORY": "/var/lib/koder-gateway"}


def write(folder: Path, text: str, name: str = "koder-gateway.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """The faults of a file in the current folder, which they name as it was named."""
    monkeypatch.chdir(tmp_path)

    def told(text: str) -> list[str]:
        write(tmp_path, text)
        with pytest.raises(ConfigurationError) as caught:
            load(Path("koder-gateway.toml"), environ=STATE)
        assert str(caught.value) == "\n".join(caught.value.faults)
        return caught.value.faults

    return told


class TestDefaults:
    def test_without_a_file_every_default_applies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "none" / "koder-gateway.toml")
        settings = load(environ=STATE)
        assert settings == replace(Settings(), state=settings.state)
        assert (settings.source, settings.digest) == (None, "")

    def test_the_digest_is_that_of_sha256sum(self, tmp_path: Path) -> None:
        file = write(tmp_path, "# one\n")
        assert load(file).digest == "54c592ac3a26758bdc4232b5a2f32eed508b2b3c48bc3b177eae44a5b47bd0c8"

    def test_the_usual_file_is_read_where_it_exists(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(tmp_path, 'log.file = "-"\nrequests.max_body = "1MiB"')
        monkeypatch.setattr(loading, "DEFAULT_PATH", file)
        settings = load(environ=STATE)
        assert (settings.source, settings.requests.max_body) == (file, 1 << 20)

    def test_a_usual_file_that_leads_nowhere_is_not_taken_for_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "koder-gateway.toml"
        link.symlink_to(tmp_path / "gone.toml")
        monkeypatch.setattr(loading, "DEFAULT_PATH", link)
        with pytest.raises(ConfigurationError, match="no such file"):
            load(environ=STATE)

    def test_units(self) -> None:
        settings = Settings()
        assert settings.timeouts == TimeoutSettings(
            head=10.0,
            body=30.0,
            connect=2.0,
            response=60.0,
            idle=60.0,
            keepalive=75.0,
            upstream_keepalive=60.0,
            exchange=0.0,
            drain=30.0,
            linger=2.0,
        )
        requests = settings.requests
        assert (requests.max_body, requests.max_head, requests.max_target) == (10 << 20, 32 << 10, 8 << 10)
        assert (requests.max_fields, requests.min_rate) == (100, 1024)
        assert settings.tenants.refresh == 30.0

    def test_the_default_table_of_services_and_routes(self) -> None:
        settings = Settings()
        urls = {route.path: settings.services[route.service].urls for route in settings.routes}
        oauth2 = ("http://127.0.0.1:4003",)
        assert urls == {
            b"/v1/users": ("http://127.0.0.1:4001",),
            b"/v1/auth": ("http://127.0.0.1:4002",),
            b"/oauth/v2": oauth2,
            b"/oidc/v1": oauth2,
            b"/.well-known": oauth2,
            b"/oauth/v2/keys": oauth2,
            b"/oidc/v1/keys": oauth2,
            b"/v1/sessions": ("http://127.0.0.1:4004",),
            b"/v1/admin": ("http://127.0.0.1:4005",),
        }
        public = {route.path for route in settings.routes if route.public}
        assert public == {b"/.well-known", b"/oauth/v2/keys", b"/oidc/v1/keys"}

    def test_the_default_limits_leave_a_few_dozen_calls_alone(self) -> None:
        assert all(rule.burst >= 60 and rule.mode == "enforce" for rule in Settings().limits)

    def test_inventing_tenants_gives_an_address_no_more_requests(self) -> None:
        limiter = Limiter(Settings().limits, 100_000)
        admitted = sum(
            limiter.admit(b"t%d" % number, b"addr", b"GET", b"/v1/users", 5000.0).refused is None
            for number in range(2500)
        )
        assert admitted == 2000
        assert limiter.admit(b"koder", b"else", b"GET", b"/v1/users", 5000.0).refused is None

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v1/auth/login"),
            ("POST", "/oauth/v2/token"),
            ("PUT", "/v1/users/7/password"),
            ("GET", "/v1/admin/audit"),
        ],
    )
    def test_guesses_side_by_side_stop_at_the_shipped_limits(self, method: str, path: str) -> None:
        limiter = Limiter(Settings().limits, 100_000)
        verdicts = [limiter.admit(b"koder", b"addr", method.encode(), path.encode(), 5000.0) for _ in range(400)]
        assert sum(verdict.refused is None for verdict in verdicts) <= 4 * 60

    @pytest.mark.parametrize("path", ["/v1/auth/login", "/oauth/v2/token", "/v1/users/7/password", "/v1/admin/audit"])
    def test_guesses_one_after_another_stop_at_the_shipped_limits(self, path: str) -> None:
        limiter = Limiter(Settings().limits, 100_000)
        admitted = 0
        while (verdict := limiter.admit(b"koder", b"addr", b"POST", path.encode(), 5000.0)).refused is None:
            limiter.settle(verdict, 401, True, 5000.0)
            admitted += 1
        assert admitted == 60

    def test_settings_are_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            Settings().log.access = False  # type: ignore[misc]
        with pytest.raises(TypeError):
            Settings().services["identity"] = None  # type: ignore[index]


class TestStateFolder:
    @pytest.mark.parametrize(
        ("environ", "expected"),
        [
            ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/xdg"}, "/var/lib/a"),
            ({"XDG_STATE_HOME": "/xdg", "HOME": "/home/x"}, "/xdg/koder-gateway"),
            ({"XDG_STATE_HOME": "relative", "HOME": "/home/x"}, "/home/x/.local/state/koder-gateway"),
            ({"HOME": "/home/x"}, "/home/x/.local/state/koder-gateway"),
        ],
    )
    def test_the_environment_decides(self, tmp_path: Path, environ: dict[str, str], expected: str) -> None:
        assert load(write(tmp_path, ""), environ=environ).state.dir == Path(expected)

    def test_a_configured_folder_wins(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, 'state.dir = "state"'), environ=STATE).state.dir == tmp_path / "state"


class TestValues:
    def test_services_are_laid_over_the_defaults(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").touch()
        text = """
        [services]
        identity = "http://10.0.0.1:80"
        billing = { urls = ["https://a.example:8443", "https://[::1]"], ca = "ca.pem", connect = "500ms" }
        socket = { url = "unix:/run/x.sock", response = "5s", keepalive = "900ms", health = "/healthz", max_connections = 7 }
        """
        services = load(write(tmp_path, text), environ=STATE).services
        assert list(services) == ["identity", "auth", "oauth2", "session", "admin", "billing", "socket"]
        assert services["identity"].urls == ("http://10.0.0.1:80",)
        assert services["auth"] == Settings().services["auth"]
        billing, other = services["billing"], services["socket"]
        assert billing.urls == ("https://a.example:8443", "https://[::1]")
        assert (billing.ca, billing.connect, billing.response, billing.keepalive) == (
            tmp_path / "ca.pem",
            0.5,
            None,
            None,
        )
        assert (other.urls, other.response) == (("unix:/run/x.sock",), 5.0)
        assert other.health == HealthSettings(path="/healthz")
        assert (other.name, other.max_connections, other.keepalive) == ("socket", 7, 0.9)

    def test_routes_and_limits_replace_the_defaults(self, tmp_path: Path) -> None:
        text = """
        [[routes]]
        path = "/v2"
        service = "auth"
        [[limits]]
        name = "login"
        key = ["ip"]
        rate = "10/m"
        paths = ["/v1/auth"]
        methods = ["POST"]
        mode = "shadow"
        charge = "failures"
        [[limits]]
        name = "all"
        rate = "1000000/s"
        burst = 5
        """
        settings = load(write(tmp_path, text), environ=STATE)
        assert settings.routes == (Route(b"/v2", "auth"),)
        assert settings.limits == (
            LimitRule("login", ("ip",), 10, 60, 10, (b"/v1/auth",), frozenset([b"POST"]), "shadow", "failures"),
            LimitRule("all", ("tenant", "ip"), 1_000_000, 1, 5, None, None, "enforce", "requests"),
        )

    def test_an_empty_list_of_limits_is_none(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, "limits = []"), environ=STATE).limits == ()

    def test_paths_are_relative_to_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "etc" / "certs").mkdir(parents=True)
        text = 'tls.certificates = "certs"\nlog.file = "../access.log"\n[tenants]\nregistry = "tenants.toml"'
        write(tmp_path / "etc", text)
        write(tmp_path / "etc", '[[tenant]]\nslug = "koder"', "tenants.toml")
        monkeypatch.chdir(tmp_path)
        settings = load(Path("etc/koder-gateway.toml"), environ=STATE)
        assert settings.source == tmp_path / "etc" / "koder-gateway.toml"
        assert settings.tls.certificates == tmp_path / "etc" / "certs"
        assert settings.log.file == str(tmp_path / "access.log")
        assert settings.tenants.registry == tmp_path / "etc" / "tenants.toml"
        assert tuple(settings.registered or ()) == (Tenant("koder"),)

    def test_a_registry_may_be_a_url(self, tmp_path: Path) -> None:
        text = 'tenants.registry = "http://127.0.0.1:4005/v1/admin/tenants?all=1"\ntenants.default = "koder"'
        settings = load(write(tmp_path, text), environ=STATE)
        assert settings.tenants.registry == "http://127.0.0.1:4005/v1/admin/tenants?all=1"
        assert settings.registered is None

    @pytest.mark.parametrize(
        ("text", "section", "key", "expected"),
        [
            ('listen.port = ["ssl:443", "tcp:80"]', "listen", "port", ("ssl:443", "tcp:80")),
            ('listen.redirect_port = ""', "listen", "redirect_port", ()),
            ("listen.redirect_port = []", "listen", "redirect_port", ()),
            ('listen.redirect_port = "tcp:80"', "listen", "redirect_port", ("tcp:80",)),
            ('listen.redirect_port = ["tcp:80", "tcp6:80"]', "listen", "redirect_port", ("tcp:80", "tcp6:80")),
            ('listen.trusted_proxies = ["unix:", "::1"]', "listen", "trusted_proxies", ("unix:", "::1/128")),
            ('listen.port = "tcp:8080:interface=127.0.0.1"', "listen", "port", ("tcp:8080:interface=127.0.0.1",)),
            (
                'listen.trusted_proxies = ["10.0.0.7", "fd00::/8"]',
                "listen",
                "trusted_proxies",
                ("10.0.0.7/32", "fd00::/8"),
            ),
            ('tenants.base_domain = "ID.Example.com"', "tenants", "base_domain", "id.example.com"),
            ('tenants.header = "X-Org"', "tenants", "header", "X-Org"),
            ('cors.max_age = "10m"', "cors", "max_age", 600),
            ("cors.max_age = 0", "cors", "max_age", 0),
            ('timeouts.exchange = "1d"', "timeouts", "exchange", 86400.0),
            ("timeouts.drain = 0", "timeouts", "drain", 0.0),
            ("timeouts.drain = 0.0", "timeouts", "drain", 0.0),
            ('timeouts.idle = "1.5h"', "timeouts", "idle", 5400.0),
            ("requests.min_rate = 0", "requests", "min_rate", 0),
            ('requests.max_head = "512B"', "requests", "max_head", 512),
            ('cors.origins = ["https://a.example:8443"]', "cors", "origins", ("https://a.example:8443",)),
        ],
    )
    def test_what_is_taken(self, tmp_path: Path, text: str, section: str, key: str, expected: object) -> None:
        settings = load(write(tmp_path, text), environ=STATE)
        assert getattr(getattr(settings, section), key) == expected


class TestFaults:
    def test_every_fault_at_once(self, faults: Faults, tmp_path: Path) -> None:
        write(tmp_path, '[[tenant]]\nslug = "Koder"\n[[tenant]]\nslug = "a"\nstatus = "off"', "tenants.toml")
        text = """
        wat = 1
        [tenants]
        registry = "tenants.toml"
        header = "Host"
        [services]
        billing = { connect = "1s" }
        [[routes]]
        path = "/a"
        service = "identiy"
        [[routes]]
        service = "auth"
        [[limits]]
        name = "x"
        rate = "10/x"
        [requests]
        max_bdy = "1MiB"
        max_head = 5
        """
        told = faults(text)
        assert [line.split(": ")[:2] for line in told] == [
            ["koder-gateway.toml", "wat"],
            ["koder-gateway.toml", "tenants.header"],
            ["koder-gateway.toml", "services.billing.url"],
            ["koder-gateway.toml", "routes[1].path"],
            ["koder-gateway.toml", "limits[0].rate"],
            ["koder-gateway.toml", "requests.max_head"],
            ["koder-gateway.toml", "requests.max_bdy"],
            ["koder-gateway.toml", "routes[0].service"],
            ["tenants.toml", "tenant[0].slug"],
            ["tenants.toml", "tenant[1].status"],
        ]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            (
                '[[limits]]\nname = "a"\nrate = "10/x"',
                'limits[0].rate: "10/x" is not a rate; write a number and s, m, h or d, as in "10/m"',
            ),
            ('requests.max_bdy = "1B"', 'requests.max_bdy: is an unknown key; did you mean "max_body"?'),
            ("listen.processes = 2", "listen.processes: is an unknown key; known here: "),
            ("requets = {}", 'requets: is an unknown key; did you mean "requests"?'),
            ('"a b" = 1', '"a b": is an unknown key; '),
            ("cors = 5", "cors: 5 is not a table; "),
            ("routes = 5", "routes: 5 is not an array of tables; "),
            ("services = []", "services: a list is not a table; "),
            ("timeouts.connect = 30", 'timeouts.connect: 30 has no unit; for seconds write "30s"'),
            ("timeouts.connect = 1.5", 'timeouts.connect: 1.5 has no unit; for seconds write "1.5s"'),
            ('timeouts.connect = "30"', 'timeouts.connect: "30" has no unit; for seconds write "30s"'),
            ("timeouts.connect = -1", "timeouts.connect: -1 is not a duration; "),
            ("timeouts.connect = nan", "timeouts.connect: nan is not a duration; "),
            ("timeouts.connect = true", "timeouts.connect: true is not a duration; "),
            ("timeouts.connect = 2020-01-01", "timeouts.connect: a date or time is not a duration; "),
            ('timeouts.connect = "-1s"', 'timeouts.connect: "-1s" is not a duration; '),
            ('timeouts.connect = "2 s"', 'timeouts.connect: "2 s" is not a duration; '),
            ('timeouts.connect = "2w"', 'timeouts.connect: "2w" has an unknown unit; '),
            ('timeouts.connect = "366d"', 'timeouts.connect: "366d" is more than a year; '),
            ("timeouts.connect = 0", "timeouts.connect: 0 is too short; "),
            ("requests.max_body = 1024", 'requests.max_body: 1024 has no unit; for bytes write "1024B"'),
            ('requests.max_body = "10MB"', 'requests.max_body: "10MB" has an unknown unit; write "10MiB"'),
            ('requests.max_body = "0.3B"', 'requests.max_body: "0.3B" is not a whole number of bytes; '),
            ('requests.max_body = "0B"', 'requests.max_body: "0B" would refuse everything; '),
            ("requests.max_body = -5", "requests.max_body: -5 is not a size; "),
            ("shares.address = 25", 'shares.address: 25 has no %; write "25%"'),
            ("shares.address = 0", "shares.address: 0 is not a percentage; "),
            ('shares.address = "25"', 'shares.address: "25" is not a percentage; '),
            ('shares.address = "0%"', 'shares.address: "0%" is out of range; write "1%" to "100%"'),
            ('shares.tenant = "101%"', 'shares.tenant: "101%" is out of range; '),
            ("requests.max_fields = 0", "requests.max_fields: 0 is out of range; write 1 to 65536"),
            ("requests.max_fields = true", "requests.max_fields: true is not an integer; "),
            ("listen.max_connections = -1", "listen.max_connections: -1 is out of range; "),
            ('log.access = "yes"', 'log.access: "yes" is not a boolean; write true or false'),
            ('log.file = "no/such/log"', 'log.file: "no/such/log" is in a folder that does not exist; '),
            ('log.file = "."', 'log.file: "." is a folder; '),
            ("log.file = 1", "log.file: 1 is not a string; write it in quotes"),
            ('problems.docs_url = "/errors/"', 'problems.docs_url: "/errors/" is not an absolute http or https URL; '),
            ('problems.docs_url = "https://a/b c/"', 'problems.docs_url: "https://a/b c/" is not an absolute http or'),
            ('problems.docs_url = "https://a"', 'problems.docs_url: "https://a" is not an absolute http or https URL; '),
            ('problems.docs_url = "https://u:p@a/"', "problems.docs_url: "),
            ('problems.docs_url = "https://a/e"', 'problems.docs_url: "https://a/e" does not end in "/", "#" or "=", '),
            (f'problems.docs_url = "https://a/{"e" * 512}/"', "problems.docs_url: "),
            ("problems.docs_url = 1", "problems.docs_url: 1 is not a string; write it in quotes"),
            ("listen.port = 443", "listen.port: 443 is a bare port; write a Twisted server endpoint, as in \"ssl:443\""),
            ("listen.port = []", "listen.port: the list is empty; "),
            ('listen.port = "443"', 'listen.port: "443" is not a Twisted server endpoint; '),
            ('listen.port = ["tcp:1", "tcp:1"]', "listen.port[1]: is the same as [0]; "),
            ("listen.redirect_port = 80", "listen.redirect_port: 80 is a bare port; write a Twisted server endpoint, as in \"tcp:80\""),
            ('listen.redirect_port = ["8080"]', 'listen.redirect_port[0]: "8080" is not a Twisted server endpoint; write a kind and its arguments, as in "tcp:8080"'),
            ('listen.redirect_port = ["tcp:80", "tcp:80"]', "listen.redirect_port[1]: is the same as [0]; "),
            ('tls.acme_webroot = "nowhere"', 'tls.acme_webroot: "nowhere": no such file or folder; '),
            ('listen.trusted_proxies = ["unix"]', 'listen.trusted_proxies[0]: "unix" is not a network; '),
            ('listen.trusted_proxies = ["10.0.0.1/8"]', 'listen.trusted_proxies[0]: "10.0.0.1/8" has bits set beyond its prefix; write "10.0.0.0/8"'),
            ('listen.trusted_proxies = ["proxy"]', 'listen.trusted_proxies[0]: "proxy" is not a network; '),
            ('routes = [{path = "/a", service = "admin", allow = ["10.0.0.1/8"]}]', 'routes[0].allow[0]: "10.0.0.1/8" has bits set beyond its prefix; write "10.0.0.0/8"'),
            ('routes = [{path = "/a", service = "admin", allow = "10.0.0.0/8"}]', 'routes[0].allow: "10.0.0.0/8" is not a list; '),
            ('routes = [{path = "/a", service = "admin", allow = ["::1", "::1/128"]}]', "routes[0].allow[1]: is the same as [0]; leave one out"),
            ('listen.trusted_proxies = "::1"', 'listen.trusted_proxies: "::1" is not a list; '),
            ('tenants.base_domain = "b\u00fccher.example"', 'tenants.base_domain: "b\u00fccher.example" is not ASCII, as a Host header must be; write "xn--bcher-kva.example"'),
            ('tenants.base_domain = "10.0.0.1"', 'tenants.base_domain: "10.0.0.1" is an address, not a domain name; '),
            ('tenants.base_domain = "id.example."', 'tenants.base_domain: "id.example." ends in a dot; write "id.example"'),
            ('tenants.base_domain = "-a.example"', 'tenants.base_domain: "-a.example" is not a domain name; '),
            ('tenants.base_domain = "a..example"', 'tenants.base_domain: "a..example" is not a domain name; '),
            ('tenants.default = "Koder"', 'tenants.default: "Koder" is not a slug; '),
            ('tenants.registry = "none.toml"', 'tenants.registry: "none.toml": no such file or folder; '),
            ('tenants.registry = "."', 'tenants.registry: "." is not a file; '),
            ('tenants.registry = "http://u:p@h/x"', 'tenants.registry: "http://***@h/x" is not the URL of a registry; '),
            ('tenants.registry = "https:///x"', 'tenants.registry: "https:///x" is not the URL of a registry; '),
            ('tls.certificates = "certs"', 'tls.certificates: "certs": no such file or folder; '),
            ('tls.certificates = "koder-gateway.toml"', 'tls.certificates: "koder-gateway.toml" is not a folder; '),
            ('tls.default = "a"', "tls.default: has no effect without tls.certificates; "),
            ('limits_store.url = "http://h"', 'limits_store.url: "http://h" is not a limits store; write "memory:", a socket as in "unix:/run/redis.sock", or "redis://127.0.0.1:6379/0"'),
            ('limits_store.url = "redis:h"', 'limits_store.url: "redis:h" is not a limits store; '),
            ('limits_store.url = "redis://h:x"', 'limits_store.url: "redis://h:x" is not a limits store; '),
            ('limits_store.url = "redis://u:p@h"', 'limits_store.url: "redis://***@h" has a user or a password in it; write these as user and password_file'),
            ('limits_store.url = "redis://"', 'limits_store.url: "redis://" has no usable host; '),
            ('limits_store.url = "redis://h/x"', 'limits_store.url: "redis://h/x" has something after the host that is no number of a database; '),
            ('limits_store.url = "redis://h/0?db=1"', 'limits_store.url: "redis://h/0?***" has something after the host '),
            ('limits_store.url = "unix:run/redis.sock"', 'limits_store.url: "unix:run/redis.sock" is not a socket; '),
            ('limits_store.url = 6379', 'limits_store.url: 6379 is not a string; write it in quotes, as in "redis://127.0.0.1:6379/0"'),
            ('limits_store.timeout = "6s"', 'limits_store.timeout: "6s" is too long for a request to wait; write at most "5s"'),
            ('limits_store.timeout = 0', 'limits_store.timeout: 0 is too short; write at least "1ms"'),
            ('limits_store.prefix = "a b"', 'limits_store.prefix: "a b" is not a prefix of keys; '),
            ('limits_store.prefix = ""', 'limits_store.prefix: "" is not a prefix of keys; '),
            ('limits_store.user = "a b"', 'limits_store.user: "a b" is not a user; '),
            ('limits_store.user = "a"', "limits_store.user: has no effect without a password; write password_file too, or leave it out"),
            ('limits_store.password_file = "none"', 'limits_store.password_file: "none": no such file or folder; '),
            ('limits_store.password_file = "koder-gateway.toml"', 'limits_store.password_file: has no effect with url = "memory:"; leave it out'),
            ('limits_store.timeout = "60ms"', 'limits_store.timeout: has no effect with url = "memory:"; leave it out'),
            ('limits_store.prefix = "x"', 'limits_store.prefix: has no effect with url = "memory:"; leave it out'),
            ('limits_store.ca = "koder-gateway.toml"', 'limits_store.ca: has no effect without TLS; write a url that begins with "rediss://", or leave it out'),
            ('limits = [{name = "a", in_flight = 1, on_failure = "open"}]', "limits[0].on_failure: has no effect with in_flight, which every gateway counts by itself; leave it out"),
            ('limits = [{name = "a", rate = "1/s", on_failure = "shut"}]', 'limits[0].on_failure: "shut" is not an accepted value; '),
            ('limits = [{name = "a", rate = "1/s", key = ["ip"], charge = "refusals", on_failure = "open"}]', 'limits[0].on_failure: has no effect with charge = "refusals", which every gateway counts by itself; leave it out'),
            ('cors.origins = ["*"]', 'cors.origins[0]: "*" is every page, which credentials forbid; '),
            ('cors.origins = ["https://*.com"]', 'cors.origins[0]: "https://*.com" covers domains that anybody can register; '),
            ('cors.origins = ["https://a.example", "https://*.id.koder.dev:8443"]', 'cors.origins[1]: "https://*.id.koder.dev:8443" covers the hosts of all tenants, whose pages would act for each other; list each origin by itself'),
            ('cors.origins = ["https://a.example/"]', 'cors.origins[0]: "https://a.example/" is not an origin; '),
            ('cors.origins = ["https://\\u2028"]', 'cors.origins[0]: "https://\\u2028" has line separator (U+2028) in it; '),
            ('cors.methods = ["get"]', 'cors.methods[0]: "get" is not a method that the gateway forwards; did you mean "GET"?'),
            ('cors.headers = ["a b"]', 'cors.headers[0]: "a b" is not a header name'),
            ('cors.max_age = "1500ms"', 'cors.max_age: "1500ms" is not a number of whole seconds; '),
            ("services.x = 5", "services.x: 5 is not a service; "),
            ("services.x = {}", "services.x.url: is missing; "),
            ('services.x = { url = "http://a", urls = ["http://b"] }', "services.x.urls: is given as well as url; "),
            ('services."x y" = "http://a"', 'services."x y": "x y" is not a name; '),
            ('services.x = { url = "http://a", ca = "koder-gateway.toml" }', "services.x.ca: has no effect without TLS; "),
            ('services.x = { url = "https://a", client_cert = "koder-gateway.toml" }', "services.x.client_key: is missing"),
            ('services.x = { url = "https://a", client_key = "koder-gateway.toml" }', "services.x.client_cert: is missing"),
            ('services.x = { url = "http://a", health = { path = "/a", host = "b c" } }', 'services.x.health.host: "b c" '),
            ('services.x = { url = "http://a", health = { host = "b" } }', "services.x.health.path: is missing"),
            ('services.x = { url = "http://a", health = "healthz" }', 'services.x.health: "healthz" can match no request'),
            ('services.x = { url = "http://a", health = { path = "/a", interval = "1ms" } }', 'services.x.health.interval: "1ms" is too short; '),
            ('services.x = { url = "http://a", health = { path = "/a", timeout = "6s" } }', "services.x.health.timeout: is longer than the interval"),
            ('services.x = { url = "http://a", health = { path = "/a", unhealthy = 0 } }', "services.x.health.unhealthy: 0 is out of range; "),
            ('services.x = { url = "http://a", health = { path = "/a", healthy = 0 } }', "services.x.health.healthy: 0 is out of range; "),
            ('services.x = { url = "http://a", health = { path = "/a", status = "2xx" } }', 'services.x.health.status: "2xx" is no status of a response; '),
            ('services.x = { url = "http://a", health = { path = "/a", status = [200, 600] } }', "services.x.health.status: 600 is no status of a response; "),
            ('services.x = { url = "http://a", health = { path = "/a", status = "399-200" } }', 'services.x.health.status: "399-200" ends before it begins; write "200-399"'),
            ('services.x = { url = "http://a", health = { path = "/a", status = [] } }', "services.x.health.status: the list is empty; "),
            ('services.x = { url = "http://a", eject_failures = -1 }', "services.x.eject_failures: -1 is out of range; "),
            ('services.x = { url = "http://a", eject_window = "10ms" }', 'services.x.eject_window: "10ms" is too short; '),
            ('services.x = { url = "http://a", eject_statuses = [404] }', "services.x.eject_statuses[0]: 404 is out of range; "),
            ('services.x = { url = "http://a", max_connections = 0 }', "services.x.max_connections: 0 is out of range; "),
            ('[[routes]]\nservice = "auth"', "routes[0].path: is missing, and it has no default; write it"),
            ('[[routes]]\npath = "/a"\nservice = "oauth"', 'routes[0].service: "oauth" is not one of the services; did you mean "oauth2"?'),
            ('[[routes]]\npath = "/a/"\nservice = "auth"\n[[routes]]\npath = "/a"\nservice = "auth"', 'routes[1].path: "/a" is already used by routes[0]; '),
            ('[[routes]]\npath = "/a?b"\nservice = "auth"', 'routes[0].path: "/a?b" can match no request (The path has a query'),
            ('[[routes]]\npath = "/a/../b"\nservice = "auth"', 'routes[0].path: "/a/../b" can match no request (The path has a dot segment'),
            ('[[limits]]\nname = "a"\nrate = "1/s"\n[[limits]]\nname = "a"\nrate = "2/s"', 'limits[1].name: "a" is already used by limits[0]; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "refusals"', 'limits[0].key: must be ["ip"] with charge = "refusals", since '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["ip"]\ncharge = "refusals"\npaths = ["/a"]', 'limits[0].paths: have no effect with charge = "refusals": '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["ip"]\ncharge = "refusals"\nmethods = ["GET"]', 'limits[0].methods: have no effect with charge = "refusals": '),
            ('[[limits]]\nname = "a"\nrate = "0/s"', 'limits[0].rate: "0/s" is out of range; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nstatuses = [401]', 'limits[0].statuses: has no effect without charge = "failures"; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = []', "limits[0].statuses: the list is empty; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = [401, 429]', "limits[0].statuses[1]: 429 is the service's own limit, and no failure; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = [399]', "limits[0].statuses[0]: 399 is out of range; write 400 to 499"),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = [500]', "limits[0].statuses[0]: 500 is out of range; write 400 to 499"),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = ["401"]', "limits[0].statuses[0]: \"401\" is not an integer; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = [401, 401]', "limits[0].statuses[1]: is the same as [0]; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\ncharge = "failures"\nstatuses = 401', "limits[0].statuses: 401 is not a list; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nburst = 0', "limits[0].burst: 0 is out of range; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = []', "limits[0].key: the list is empty; "),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["ipp"]', 'limits[0].key[0]: "ipp" is not an accepted value; did you mean "ip"?'),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:X_Key"]', 'limits[0].key[0]: "header:X_Key" has an underscore, '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:"]', 'limits[0].key[0]: "header:" is not a header name '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:a b"]', 'limits[0].key[0]: "header:a b" is not a header name '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:X-Forwarded-For"]', 'limits[0].key[0]: "header:X-Forwarded-For" names a header that clients can forge; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:True-Client-IP"]', 'limits[0].key[0]: "header:True-Client-IP" names a header that clients can forge; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:Cookie"]', 'limits[0].key[0]: "header:Cookie" names a header that says nothing about who asks; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:Connection"]', 'limits[0].key[0]: "header:Connection" names a header that says nothing about who asks; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:x-tenant-id"]', 'limits[0].key[0]: "header:x-tenant-id" is the tenant header; write "tenant"'),
            ('[tenants]\nheader = "X-Org"\n[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["ip", "header:x-org"]', 'limits[0].key[1]: "header:x-org" is the tenant header; write "tenant"'),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["header:X-A", "header:x-a"]', "limits[0].key[1]: is the same as [0]; "),
            ('[[limits]]\nname = "a"', 'limits[0].rate: is missing; write the rate, as in rate = "10/m", or in_flight = N'),
            ('[[limits]]\nname = "a"\nin_flight = 0', "limits[0].rate: is missing; write the rate, "),
            ('[[limits]]\nname = "a"\nin_flight = -1', "limits[0].in_flight: -1 is out of range; write 0 to "),
            ('[[limits]]\nname = "a"\nin_flight = 5\nrate = "1/s"', "limits[0].in_flight: is given as well as rate; write one of the two, "),
            ('[[limits]]\nname = "a"\nin_flight = 5\nburst = 2', "limits[0].burst: has no effect with in_flight; "),
            ('[[limits]]\nname = "a"\nin_flight = 5\ncharge = "failures"', 'limits[0].charge: "failures" has no effect with in_flight; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nipv6_prefix = 31', "limits[0].ipv6_prefix: 31 is out of range; write 32 to 128"),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["tenant"]\nipv6_prefix = 48', 'limits[0].ipv6_prefix: has no effect, since key has no "ip"; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nkey = ["ip"]\ncharge = "refusals"\nipv6_prefix = 48', 'limits[0].ipv6_prefix: has no effect with charge = "refusals", '),
            ('[[limits]]\nname = "a\\n"\nrate = "1/s"', 'limits[0].name: "a\\n" is not a name; '),
            ('[[limits]]\nname = "a"\nrate = "1/s"\nmode = "off"', 'limits[0].mode: "off" is not an accepted value'),
            ("limits = [5]", "limits[0]: 5 is not a table; "),
        ],
    )  # fmt: skip
    def test_a_fault_and_what_would_be_right(self, faults: Faults, text: str, line: str) -> None:
        told = faults(text)
        assert len(told) == 1
        assert told[0].startswith(f"koder-gateway.toml: {line}")

    @pytest.mark.parametrize(
        "header",
        ["Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Keep-Alive", "Cookie",
         "X-Forwarded-For", "Forwarded", "Via", "X-Request-ID", "X_Tenant_ID", "Authorization", "Origin", "a b", ""],
    )  # fmt: skip
    def test_a_tenant_header_that_means_something_else_is_refused(self, faults: Faults, header: str) -> None:
        told = faults(f'tenants.header = "{header}"')
        assert [line.split(": ")[1] for line in told] == ["tenants.header"]

    @pytest.mark.parametrize(
        "url",
        ["127.0.0.1:4001", "ftp://h", "http://", "http:///x", "http://u@h", "http://u:p@h", "http://h/", "http://h/a",
         "http://h?q", "http://h#f", "http://h:0", "http://h:65536", "http://h:x", "http://a b", "http://[::1",
         "http://[1.2.3.4]", "http://-a", "http://h\\\\x", "http://b\u00fccher", "unix:run/x", "unix:", "unix://h/x",
         "unix:/run/", f"unix:/{'a' * 107}", "HTTP//h", "http:h", "//h", ""],
    )  # fmt: skip
    def test_an_address_that_is_none_is_refused(self, faults: Faults, url: str) -> None:
        told = faults(f'services.identity = "{url}"')
        assert [line.split(": ")[1] for line in told] == ["services.identity"]

    def test_a_default_tenant_must_be_registered(self, faults: Faults, tmp_path: Path) -> None:
        write(tmp_path, '[[tenant]]\nslug = "koder"', "tenants.toml")
        assert faults('[tenants]\nregistry = "tenants.toml"\ndefault = "kode"') == [
            'koder-gateway.toml: tenants.default: "kode" is not in the registry; did you mean "koder"?'
        ]

    def test_the_registry_is_named_beside_its_configuration(self, tmp_path: Path) -> None:
        write(tmp_path, "x = 1", "tenants.toml")
        with pytest.raises(ConfigurationError) as caught:
            load(write(tmp_path, 'tenants.registry = "tenants.toml"'), environ=STATE)
        assert all(line.startswith(f"{tmp_path}/tenants.toml: ") for line in caught.value.faults)

    def test_a_value_is_shown_on_one_line_and_cut_short(self, faults: Faults) -> None:
        told = faults(f'tenants.default = "a\\nb{"x" * 500}"\nrequests.max_fields = 0x{"f" * 5000}')
        assert len(told) == 2
        assert all(len(line) < 250 and len(line.splitlines()) == 1 for line in told)


class TestFiles:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path / "none.toml", environ=STATE)
        assert caught.value.faults == [f"{tmp_path}/none.toml: no such file; write one, or name another"]

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, environ=STATE)
        assert caught.value.faults == [f"{tmp_path}: is a directory; name a readable file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_permission(self, tmp_path: Path) -> None:
        file = write(tmp_path, "")
        file.chmod(0)
        with pytest.raises(ConfigurationError, match="permission denied"):
            load(file, environ=STATE)

    def test_a_socket_is_not_a_registry(self, faults: Faults) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("tenants.sock")
            assert faults('tenants.registry = "tenants.sock"') == [
                'koder-gateway.toml: tenants.registry: "tenants.sock" is not a file; write the path of one'
            ]

    @pytest.mark.parametrize(
        ("data", "place"),
        [
            (b"a = 1\nb = = 2\n", "line 2, column 5: "),
            (b'a = "', "line 1, column 6: "),
            (b"a = 1\na = 2", "line 2, column 6: "),
            (b"a = 1\n\nb = '\xff'", "line 3, column 6: is not UTF-8"),
            (b"a = " + b"9" * 5000, "line 1, column 1: "),
            (b"a = " + b"[" * 100_000, "line 1, column 1: is nested too deeply"),
        ],
        ids=["syntax", "end", "twice", "utf-8", "digits", "depth"],
    )
    def test_what_is_not_toml(self, tmp_path: Path, data: bytes, place: str) -> None:
        file = tmp_path / "koder-gateway.toml"
        file.write_bytes(data)
        with pytest.raises(ConfigurationError) as caught:
            load(file, environ=STATE)
        (line,) = caught.value.faults
        assert line.startswith(f"{file}: {place}")
        assert len(line.splitlines()) == 1


# -- files as editors write them


@pytest.mark.parametrize("change", ["mark", "CRLF", "both"])
def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path, change: str) -> None:
    text = '[tenants]\nbase_domain = "a.example"\n# a comment\n[timeouts]\ndrain = "5s"\n'
    data = text.encode() if change == "mark" else text.replace("\n", "\r\n").encode()
    path = tmp_path / "a.toml"
    path.write_bytes(data if change == "CRLF" else b"\xef\xbb\xbf" + data)
    settings = load(path)
    assert (settings.tenants.base_domain, settings.timeouts.drain) == ("a.example", 5.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[timeouts]\ndrain\u00a0= "5s"\n',
            "line 2, column 6: has no-break space (U+00A0); type a plain space there",
        ),
        ("[log]\nfile = \u201c-\u201d\n", 'line 2, column 8: has left double quotation mark (U+201C); type " there'),
        ('[log]\nfile = "-"\u200b\n', "line 2, column 11: has zero width space (U+200B); remove it"),
        ('[log]\nfile = "\u00a0-"\nfile =\n', "line 3, column 7: Invalid value"),
        ("# \u201ca\u201d\n[log\n", "line 2, column 5: "),
    ],
)
def test_what_only_looks_like_toml_is_named(faults: Faults, text: str, says: str) -> None:
    (line,) = faults(text)
    assert says in line


def test_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[log]\n", encoding="utf-16")
    with pytest.raises(ConfigurationError, match="is UTF-16, and TOML must be UTF-8; save it again as UTF-8"):
        load(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("name", ["koder-gateway.toml", "tenants.toml"])
def test_wide_text_without_a_mark_is_named_too(tmp_path: Path, encoding: str, name: str) -> None:
    write(tmp_path, '[tenants]\nregistry = "tenants.toml"\n')
    (tmp_path / name).write_text("[[tenant]]\nslug = 'a'\n", encoding=encoding)
    with pytest.raises(ConfigurationError, match=f"is {encoding[:6].upper()}, and TOML must be UTF-8"):
        load(tmp_path / "koder-gateway.toml")


def test_a_mark_in_the_midst_and_lines_that_end_in_cr_alone(faults: Faults) -> None:
    (line,) = faults('[log]\nfile = "-"\n\ufeff[timeouts]\ndrain = "5s"\n')
    assert "line 3, column 1: has zero width no-break space (U+FEFF); remove it" in line
    Path("koder-gateway.toml").write_bytes(b'[log]\rfile = "-"\r')
    with pytest.raises(ConfigurationError, match="line 1, column 6: has a line that ends in CR alone"):
        load(Path("koder-gateway.toml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('tenants.base_domain = "id.example.com\u00a0"', "has no-break space (U+00A0) in it; remove it"),
        ('tenants.base_domain = " id.example.com"', "begins or ends with a space; remove it"),
        ('services.identity = "http://10.0.0.1:80\u200b"', "has zero width space (U+200B) in it; remove it"),
        ('listen.trusted_proxies = ["10.0.0.0/8\u00a0"]', "has no-break space (U+00A0) in it; remove it"),
        ('cors.origins = ["\ufeffhttps://a.example"]', "has zero width no-break space (U+FEFF) in it; remove it"),
        ('timeouts.drain = "5\u202fs"', "has narrow no-break space (U+202F) in it; remove it"),
    ],
)
def test_what_nobody_sees_in_a_value_is_named(faults: Faults, text: str, says: str) -> None:
    (line,) = faults(text)
    assert line.endswith(says)


def test_spaces_of_other_kinds_stay_in_strings(tmp_path: Path) -> None:
    assert read_document(write(tmp_path, 'file = "a\u00a0b" # \u201c\n'), "a") == {"file": "a\u00a0b"}


@pytest.mark.parametrize(
    ("text", "home"),
    [
        ('[log]\ndrain = "5s"', "log.drain: is an unknown key here; it belongs in [timeouts]"),
        ('drain = "5s"', "drain: is an unknown key here; it belongs in [timeouts]"),
        ('[tls]\nrate = "1/s"', "tls.rate: is an unknown key here; it belongs in [[limits]]"),
        (
            '[services]\nidentity = { url = "http://a", port = 1 }',
            "port: is an unknown key here; it belongs in [listen]",
        ),
        ('[requests]\nhealth = "/"', "it belongs in [services.NAME]"),
        (
            '[log]\nnonsense = "5s"',
            "log.nonsense: is an unknown key; known here: access, access_format, file, format, level",
        ),
        ('[services]\ndrain = "5s"', "services.drain: is not a service's address; drain belongs in [timeouts]"),
        ("[services]\nmax_streams = 5", "is not a service's address; max_streams belongs in [requests]"),
        ('[timeouts.listen]\nport = "ssl:1"', "timeouts.listen: is an unknown key here; it is a section of its own"),
        ("[[tls.limits]]\nrate = 1", "it is a section of its own: write [[limits]]"),
        (
            '[[tenant]]\nslug = "a"',
            "tenant: has no effect here; write [[tenant]] in the tenants file, which tenants.",
        ),
        (
            '[[tenants]]\nslug = "a"',
            "tenants: has no effect here; write [[tenant]] in the tenants file, which tenants.",
        ),
        (
            '[tenants]\nslug = "a"',
            "tenants.slug: is an unknown key here; it belongs in [[tenant]] in the tenants file",
        ),
        ('domains = ["a.b"]', "domains: is an unknown key here; it belongs in [[tenant]] in the tenants file"),
    ],
)
def test_a_key_below_the_wrong_section_is_told_its_own(faults: Faults, text: str, home: str) -> None:
    (line,) = faults(text)
    assert home in line


@pytest.mark.parametrize(
    ("text", "home"),
    [
        (
            '[[tenant]]\nslug = "a"\nrefresh = "5s"',
            "tenant[0].refresh: is an unknown key here; it belongs in [tenants]",
        ),
        (
            'max_body = "1MiB"\n[[tenant]]\nslug = "a"',
            "max_body: is an unknown key here; it belongs in [requests] in",
        ),
        (
            '[[tenant]]\nslug = "a"\n[tenants]\nrefresh = "5s"',
            "tenants: is an unknown key here; it is a section of the main",
        ),
        ('[[tenant]]\nslug = "a"\n[[tenants]]\nslug = "b"', 'tenants: is an unknown key; did you mean "tenant"?'),
        ('[[tenant]]\nslug = "a"\nnonsense = 1', "tenant[0].nonsense: is an unknown key; known here: "),
    ],
)
def test_a_key_in_the_wrong_file_is_told_its_own(faults: Faults, tmp_path: Path, text: str, home: str) -> None:
    write(tmp_path, text, "tenants.toml")
    (line,) = faults('tenants.registry = "tenants.toml"')
    assert home in line


def test_the_keys_of_a_tenant_are_known() -> None:
    parts = [row.key.split(".") for row in tenants_schema()]
    assert {path[1] for path in parts if len(path) == 2} == set(TENANT_KEYS)


# -- what no message may have in it

SECRETS = (
    "http://user:hunter2@h/p",
    "redis://:hunter2@h:6379/0",
    "REDISS://hunter2@h",
    "redis:user:hunter2@h",
    "user:hunter2@h",
    "https://user:a/hunter2@h",
    "https://user:hunter@hunter2@h",
    "https://h/p?key=hunter2",
    "https://h/p#hunter2",
    "https://us\u00e9r:hunter2@h",
    "https://user:" + "a" * 70 + "hunter2@h",
)


@pytest.mark.parametrize("url", SECRETS)
def test_no_fault_of_any_key_tells_a_secret(faults: Faults, url: str) -> None:
    """Wherever somebody writes a URL, and as whatever."""
    for row in schema():
        name = row.key.replace(".NAME.", ".identity.")
        section, array, key = name.partition("[].")
        text = f'[[{section}]]\n{key} = "{url}"' if array else f'{name} = "{url}"'
        for told in (text, text.replace(f'"{url}"', f'["{url}"]'), text.replace(f'"{url}"', f'{{ "{url}" = 1 }}')):
            assert "hunter2" not in "\n".join(faults_of(faults, told)), told
    for text in (f'services."{url}" = 1', f'services.identity = ["{url}"]', f'"{url}" = 1', f'services.a = "{url}"'):
        assert "hunter2" not in "\n".join(faults(text)), text


def faults_of(faults: Faults, text: str) -> list[str]:
    """The faults of a file, which may have none: some keys take any text."""
    try:
        load(write(Path(), text), environ=STATE)
    except ConfigurationError:
        return faults(text)
    return []


def test_no_fault_of_a_tenants_file_tells_a_secret(faults: Faults, tmp_path: Path) -> None:
    for url in SECRETS:
        entry = f'[[tenant]]\nslug = "{url}"\ndomains = ["{url}"]\ncors_origins = ["{url}"]\nstatus = "{url}"\n'
        write(tmp_path, entry, "tenants.toml")
        told = faults('tenants.registry = "tenants.toml"')
        assert len(told) == 4
        assert "hunter2" not in "\n".join(told)


@pytest.mark.parametrize("text", ["unix:/run/a@b.sock", "a@b", "/v1/a:b", "https://h/a:b", "10.0.0.0/8"])
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert shown(text) == f'"{text}"'


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("memory:", StoreUrl("memory:", "memory")),
        ("redis://127.0.0.1", StoreUrl("redis://127.0.0.1:6379/0", "redis", "127.0.0.1", 6379)),
        ("redis://h:1/2", StoreUrl("redis://h:1/2", "redis", "h", 1, 2)),
        ("rediss://[::1]:7/", StoreUrl("rediss://[::1]:7/0", "rediss", "::1", 7)),
        ("unix:/run/redis.sock", StoreUrl("unix:/run/redis.sock", "unix", path="/run/redis.sock")),
        ("unix:///run/redis.sock", StoreUrl("unix:/run/redis.sock", "unix", path="/run/redis.sock")),
    ],
)
def test_a_store_is_found_by_its_url(tmp_path: Path, text: str, url: StoreUrl) -> None:
    file = tmp_path / "koder-gateway.toml"
    file.write_text(f'[limits_store]\nurl = "{text}"\n')
    assert load(file).limits_store.url == url


@pytest.mark.parametrize("content", ["sesame\n", "sesame\r\n", "sesame"])
def test_a_password_is_the_line_of_its_file_and_is_never_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_text(content)
    file = tmp_path / "koder-gateway.toml"
    file.write_text('[limits_store]\nurl = "redis://h"\npassword_file = "password"\n')
    settings = load(file).limits_store
    assert settings.password_file is not None
    assert settings.password_file.value == "sesame"
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "has no password"),
        (b"\n", "has no password"),
        (b"a\nb\n", "has more than one line"),
        (b"\xff\n", "is not text in UTF-8"),
        (b"x" * 5000, "has more than 4096 bytes"),
    ],
)
def test_a_file_without_a_password_is_a_fault(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "password").write_bytes(content)
    file = tmp_path / "koder-gateway.toml"
    file.write_text('[limits_store]\nurl = "redis://h"\npassword_file = "password"\n')
    with pytest.raises(ConfigurationError, match=rf'limits_store\.password_file: "password": {fault}; write'):
        load(file)
