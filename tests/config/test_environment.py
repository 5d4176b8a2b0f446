"""Environment variables in place of keys of the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koder_gateway.config import ConfigurationError, Row, Settings, load, schema
from koder_gateway.config.environment import OWN, PREFIX, overridden
from koder_gateway.config.kinds import Where
from koder_gateway.config.loading import read_settings
from koder_gateway.policy.sharded_index import no_pause
from koder_gateway.service.reload_files import read_files

ROOT = Path(__file__).parents[2]
STATE = {"STATE_DIRECTORY": "/var/lib/koder-gateway"}
Load = Callable[..., Settings]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Loads a file with variables, given without their prefix."""

    def loaded(text: str = "", **variables: str) -> Settings:
        path = tmp_path / "koder-gateway.toml"
        path.write_text(text)
        return load(path, environ={**STATE, **{PREFIX + name: value for name, value in variables.items()}})

    return loaded


@pytest.fixture
def faults(loaded: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines about a file and variables, without the folder and the prefix."""

    def faults(text: str = "", **variables: str) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            loaded(text, **variables)
        return [line.replace(f"{tmp_path}/", "").replace(PREFIX, "") for line in caught.value.faults]

    return faults


VALUES: list[tuple[str, str, Callable[[Settings], Any], Any]] = [
    ("LISTEN__ADMIN_PORT", "tcp:9100", lambda s: s.listen.admin_port, "tcp:9100"),
    ("LISTEN__ADMIN_PORT", '"tcp:9100"', lambda s: s.listen.admin_port, "tcp:9100"),
    ("LISTEN__ADMIN_PORT", "[::1]:9100", lambda s: s.listen.admin_port, "[::1]:9100"),
    ("LISTEN__ADMIN_PORT", "", lambda s: s.listen.admin_port, ""),
    ("LISTEN__PORT", "tcp:80", lambda s: s.listen.port, ("tcp:80",)),
    ("LISTEN__PORT", '["tcp:80", "tcp:81"]', lambda s: s.listen.port, ("tcp:80", "tcp:81")),
    ("LISTEN__WORKERS", "1", lambda s: s.listen.workers, 1),
    ("LISTEN__HTTP2", "false", lambda s: s.listen.http2, False),
    ("LISTEN__TRUSTED_PROXIES", '["10.0.0.0/8"]', lambda s: s.listen.trusted_proxies, ("10.0.0.0/8",)),
    ("TENANTS__DEFAULT", "123", lambda s: s.tenants.default, "123"),
    ("TENANTS__DEFAULT", "true", lambda s: s.tenants.default, "true"),
    ("TIMEOUTS__HEAD", "5s", lambda s: s.timeouts.head, 5.0),
    ("TIMEOUTS__TUNNEL", "0", lambda s: s.timeouts.tunnel, 0.0),
    ("REQUESTS__MAX_BODY", "1MiB", lambda s: s.requests.max_body, 1 << 20),
    ("CORS__MAX_AGE", "60", lambda s: s.cors.max_age, 60),
    ("CORS__MAX_AGE", "1m", lambda s: s.cors.max_age, 60),
    ("TLS__HSTS", "false", lambda s: s.tls.hsts, ""),
    ("LIMITS_STORE__URL", "unix:/run/r.sock", lambda s: s.limits_store.url.text, "unix:/run/r.sock"),
    ("STATE__DIR", "/srv/state", lambda s: s.state.dir, Path("/srv/state")),
]


@pytest.mark.parametrize(
    ("name", "text", "of", "expected"), VALUES, ids=[f"{name}={text}" for name, text, _, _ in VALUES]
)
def test_a_variable_takes_the_place_of_a_key(
    loaded: Load, name: str, text: str, of: Callable[[Settings], Any], expected: Any
) -> None:
    assert of(loaded("", **{name: text})) == expected


SCALARS = [row for row in schema() if row.default is not None and "[]" not in row.key and "NAME" not in row.key]


@pytest.mark.parametrize("row", SCALARS, ids=lambda row: row.key)
def test_every_key_has_a_variable(loaded: Load, row: Row) -> None:
    """Its default, as TOML, changes nothing."""
    assert row.default is not None
    settings = loaded("", **{row.key.replace(".", "__").upper(): row.default})
    assert settings == loaded("")
    # Of a table within a section the whole counts as written.
    assert any(f"{row.key}.".startswith(f"{written}.") for written in settings.written)
    assert settings.variables == {row.key: PREFIX + row.key.replace(".", "__").upper()}


def test_a_variable_goes_before_the_file_and_the_file_before_the_default(loaded: Load) -> None:
    settings = loaded("[timeouts]\nhead = '1s'\nidle = '2s'\n", TIMEOUTS__HEAD="3s")
    assert (settings.timeouts.head, settings.timeouts.idle, settings.timeouts.drain) == (3.0, 2.0, 30.0)


def test_a_path_is_relative_to_the_folder_of_the_file(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tenants.toml").write_text('[[tenant]]\nslug = "acme"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = loaded("", TENANTS__REGISTRY="tenants.toml")
    assert settings.registered is not None
    assert len(settings.registered) == 1


def test_without_a_file_there_is_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("koder_gateway.config.loading.DEFAULT_PATH", tmp_path / "none.toml")
    settings = load(environ={**STATE, f"{PREFIX}TENANTS__BASE_DOMAIN": "id.example"})
    assert (settings.tenants.base_domain, settings.source) == ("id.example", None)
    with pytest.raises(ConfigurationError, match=f"^environment: {PREFIX}TENANTS__BASE_DOMAIN: "):
        load(environ={f"{PREFIX}TENANTS__BASE_DOMAIN": "-"})


def test_a_reload_reads_them_again(loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded("", TENANTS__HEADER="X-A")
    monkeypatch.setenv(f"{PREFIX}TENANTS__HEADER", "X-A")
    (tmp_path / "koder-gateway.toml").write_text("tenants.header = 'X-B'\ntenants.default = 'acme'\n")
    nothing: Any = None
    again = read_files(settings, no_pause, nothing, nothing)
    assert (again.tenants.header, again.tenants.default) == ("X-A", "acme")


# -- services


def test_a_service_s_address(loaded: Load) -> None:
    services = loaded(
        "services.identity = 'http://old:1'\n"
        "[services.auth]\nurls = ['http://old:1', 'http://old:2']\nconnect = '5s'\n",
        SERVICES__IDENTITY="http://new:1",
        SERVICES__AUTH="http://new:2",
        SERVICES__OAUTH2="unix:/run/oauth2.sock",
    ).services
    assert services["identity"].urls == ("http://new:1",)
    # The rest of a table stays.
    assert (services["auth"].urls, services["auth"].connect) == (("http://new:2",), 5.0)
    assert services["oauth2"].urls == ("unix:/run/oauth2.sock",)
    assert services["session"].urls == ("http://127.0.0.1:4004",)


def test_the_other_keys_of_a_service(loaded: Load) -> None:
    services = loaded(
        "services.identity = 'http://old:1'\n",
        SERVICES__IDENTITY__CONNECT="5s",
        SERVICES__IDENTITY__HEALTH='{ path = "/healthz" }',
        SERVICES__SESSION__URLS='["http://a:1", "http://b:1"]',
        SERVICES__AUTH__MAX_CONNECTIONS="7",
    ).services
    assert (services["identity"].urls, services["identity"].connect) == (("http://old:1",), 5.0)
    health = services["identity"].health
    assert health is not None
    assert health.path == "/healthz"
    assert services["session"].urls == ("http://a:1", "http://b:1")
    assert (services["auth"].urls, services["auth"].max_connections) == (("http://127.0.0.1:4002",), 7)


def test_a_service_whose_name_no_variable_can_have(loaded: Load) -> None:
    text = "services.user-API = 'http://old:1'\nservices.'a.b' = 'http://old:1'\n"
    services = loaded(text, SERVICES__USER_API="http://new:1", SERVICES__A_B="http://new:2").services
    assert (services["user-API"].urls, services["a.b"].urls) == (("http://new:1",), ("http://new:2",))


def test_a_new_service(loaded: Load) -> None:
    text = "[[routes]]\npath = '/b'\nservice = 'billing'\n"
    assert loaded(text, SERVICES__BILLING="http://new:1").services["billing"].urls == ("http://new:1",)


# -- faults

WRONG = [
    ({"TIMEOUTS__HEAD": "30"}, 'TIMEOUTS__HEAD: 30 has no unit; for seconds write "30s"'),
    ({"TIMEOUTS__HEAD": "never"}, 'TIMEOUTS__HEAD: "never" is not a duration; '),
    ({"LISTEN__ADMIN_PORT": "9100"}, "LISTEN__ADMIN_PORT: 9100 is a bare port; "),
    ({"LISTEN__HTTP2": "yes"}, 'LISTEN__HTTP2: "yes" is not a boolean; write true or false'),
    ({"REQUESTS__MAX_FIELDS": "0"}, "REQUESTS__MAX_FIELDS: 0 is out of range; "),
    ({"TENANTS__BASE_DOMAIN": "5"}, 'TENANTS__BASE_DOMAIN: "5" is an address, not a domain name; '),
    ({"TENANTS__REGISTRY": "missing.toml"}, 'TENANTS__REGISTRY: "missing.toml": no such file or folder; '),
    ({"LISTEN__TRUSTED_PROXIES": '["10.0.0.0/8", "x"]'}, 'LISTEN__TRUSTED_PROXIES[1]: "x" is not a network; '),
    ({"LISTEN__TRUSTED_PROXIES": "[10.0.0.0/8]"}, "LISTEN__TRUSTED_PROXIES: is not a value of TOML; "),
    ({"LISTEN__TRUSTED_PROXIES": "10.0.0.0/8"}, 'LISTEN__TRUSTED_PROXIES: "10.0.0.0/8" is not a list; '),
    ({"SERVICES__IDENTITY": "http://user:hunter2@h"}, 'SERVICES__IDENTITY: "http://***@h" has a user in it, '),
    (
        {"LISTEN__ADMINPORT": "tcp:1"},
        "LISTEN__ADMINPORT: is no key of the configuration; did you mean LISTEN__ADMIN_PORT?",
    ),
    ({"LISTEN_PORT": "tcp:1"}, "LISTEN_PORT: is no key of the configuration; did you mean LISTEN__PORT?"),
    ({"listen__port": "tcp:1"}, "listen__port: is no key of the configuration; "),
    ({"FOO": "1"}, "FOO: is no key of the configuration; write the section, two underscores and the key, "),
    ({"OPTION": "1"}, "OPTION: is no key of the configuration; "),
    (
        {"SERVICES__IDENTITY__ULR": "http://h"},
        "SERVICES__IDENTITY__ULR: is no key of the configuration; did you mean SERVICES__IDENTITY__URL?",
    ),
    ({"SERVICES__": "http://h"}, "SERVICES__: is no key of the configuration; "),
    (
        {"ROUTES__PATH": "/"},
        "ROUTES__PATH: is not possible: routes are tables of their own; write [[routes]] in the file",
    ),
    ({"LIMITS": "[]"}, "LIMITS: is not possible: limits are tables of their own; write [[limits]] in the file"),
    ({'A\n"B"': "x"}, '"A\\n\\"B\\"": is no key of the configuration; '),
    # What contradicts another key.
    ({"LIMITS_STORE__USER": "gateway"}, "LIMITS_STORE__USER: has no effect without a password; "),
    ({"LISTEN__WORKERS": "2"}, "LISTEN__WORKERS: several workers count limits each by itself, "),
    ({"TENANTS__MAX_LOSS": "1"}, "TENANTS__MAX_LOSS: "),
]


@pytest.mark.parametrize(("variables", "says"), WRONG, ids=[next(iter(variables)) for variables, _ in WRONG])
def test_a_fault_names_the_variable(faults: Callable[..., list[str]], variables: dict[str, str], says: str) -> None:
    (line,) = faults("", **variables)
    assert line.startswith("environment: ")
    assert says in line
    assert "\n" not in line
    assert "hunter2" not in line


def test_all_faults_are_told_at_once(faults: Callable[..., list[str]]) -> None:
    lines = faults("timeouts.head = 5\nnonsense = 1\n", TIMEOUTS__IDLE="5", FOO="1")
    assert [line.partition(": ")[0] for line in lines] == ["environment"] * 2 + ["koder-gateway.toml"] * 2
    lines = faults("[", TIMEOUTS__IDLE="5")
    assert [line.partition(": ")[0] for line in lines] == ["koder-gateway.toml", "environment"]


def test_a_good_variable_in_place_of_a_bad_value(loaded: Load) -> None:
    assert loaded("timeouts.head = 5\n", TIMEOUTS__HEAD="5s").timeouts.head == 5.0


@pytest.mark.parametrize("text", ["timeouts = 5", "services = 5"])
def test_what_is_no_table_stays_a_fault_of_the_file(faults: Callable[..., list[str]], text: str) -> None:
    (line,) = faults(text, TIMEOUTS__HEAD="5s", SERVICES__IDENTITY="http://h")
    assert line.startswith(f"koder-gateway.toml: {text.partition(' ')[0]}: ")


def test_two_services_that_a_variable_may_mean(faults: Callable[..., list[str]]) -> None:
    text = "services.user-api = 'http://old:1'\nservices.user_api = 'http://old:1'\n"
    (line,) = faults(text, SERVICES__USER_API="http://h")
    says = "may mean each of the services user-api, user_api; write its key in the file"
    assert line == f"environment: SERVICES__USER_API: {says}"


@pytest.mark.parametrize("other", ["SERVICES__IDENTITY__URL", "SERVICES__IDENTITY__URLS"])
def test_two_variables_for_one_address(faults: Callable[..., list[str]], other: str) -> None:
    value = '["http://h"]' if other.endswith("S") else "http://h"
    (line,) = faults("", **{"SERVICES__IDENTITY": "http://h", other: value})
    assert line == f"environment: {other}: sets what SERVICES__IDENTITY sets too; leave one out"


# -- variables of others


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "443"),
        ("SERVICE_PORT_HTTPS", "443"),
        ("PORT", "tcp://10.0.0.1:443"),
        ("PORT_443_TCP", "tcp://10.0.0.1:443"),
        ("PORT_443_TCP_PROTO", "tcp"),
        ("PORT_443_TCP_PORT", "443"),
        ("PORT_443_TCP_ADDR", "10.0.0.1"),
        ("ADMIN_PORT", "tcp://10.0.0.1:9100"),
        ("ADMIN_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_variables_of_kubernetes_are_none_of_ours(loaded: Load, name: str, value: str) -> None:
    """In each container of a namespace that has a Service called koder-gateway."""
    assert loaded("", **{name: value}) == loaded("")


def test_every_variable_of_the_gateway_s_own_is_known(loaded: Load) -> None:
    used: set[str] = set()
    for folder in ("koder_gateway", "debian", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                used.update(re.findall(rf"\b{PREFIX}[A-Z]+\b(?!_)", path.read_text(errors="replace")))
    assert used == OWN
    assert loaded("", **{name.removeprefix(PREFIX): "1" for name in OWN}) == loaded("")


# -- whatever is in a variable

NAMES = st.sampled_from([row.key.replace(".", "__").replace("NAME", "IDENTITY").upper() for row in schema()])
ODD = ["", "[", "{}", "[[]]", '"', "'", "1 # x", "1\nx = 2", "\udcff"]
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(ODD))
NOWHERE = Where(Path(__file__).parent / "none", Path("/var/lib/koder-gateway"))


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.one_of(NAMES, NAMES.map(lambda name: name[1:]), st.text(max_size=12)), TEXTS, max_size=4))
def test_a_value_or_a_line(variables: dict[str, str]) -> None:
    found = overridden({}, {PREFIX + name: text for name, text in variables.items()}, NOWHERE)
    lines = list(found.faults)
    try:
        read_settings(found.document, "FILE", NOWHERE, variables=found.variables)
    except ConfigurationError as error:
        # Values that are good by themselves, and contradict each other.
        lines += error.faults
    assert [line for line in lines if len(line.splitlines()) != 1] == []
    assert [line for line in lines if not line.startswith(("environment: ", "FILE: "))] == []
    assert [line for line in found.faults if line.startswith("FILE: ")] == []
