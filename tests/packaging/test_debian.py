"""What can be said of the Debian package and its unit without building it; `make test-deb` does the rest."""

from __future__ import annotations

import configparser
import importlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from koder_gateway.config import Row, Settings, load, schema, tenants_schema
from koder_gateway.tap import Options

PROJECT = Path(__file__).parents[2]
DEBIAN = PROJECT / "debian"
EXAMPLES = DEBIAN / "examples"
MANUAL = PROJECT / "docs" / "man"
# The options that every plugin of twistd has.
EVERY_PLUGINS = {"help", "version"}
SCRIPTS = sorted(DEBIAN.glob("koder-gateway.p*[mt]"))


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEBIAN / "koder-gateway.service")
    return parser["Service"]


def written(name: str) -> str:
    return (DEBIAN / name).read_text()


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_package_has_the_version_of_the_project() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    newest = written("changelog").splitlines()[0]
    assert newest.startswith(f"koder-gateway ({setup['metadata']['version']}) ")


def test_the_changelog_has_the_versions_of_the_package() -> None:
    packaged = re.findall(r"^koder-gateway \((\S+)\)", written("changelog"), re.MULTILINE)
    signed = re.findall(r"^ -- .*>  (.*)$", written("changelog"), re.MULTILINE)
    dates = [parsedate_to_datetime(date).date().isoformat() for date in signed]
    headings = re.findall(r"^## (.*)$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings == ["Unreleased", *map(" - ".join, zip(packaged, dates, strict=True))]
    kinds = re.findall(r"^### (.*)$", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_licence_is_the_same_everywhere() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    (_, holder, *paragraphs) = (PROJECT / "LICENSE").read_text().split("\n\n")
    years_and_name = re.findall(r"^Copyright: (.*)$", written("copyright"), re.MULTILINE)
    assert [holder.removeprefix("Copyright (c) ")] == years_and_name
    assert holder.endswith(setup["metadata"]["author"])
    packaged = re.sub(
        r"^ \.?", "", written("copyright").partition("License: Expat\n\nLicense: Expat\n")[2], flags=re.M
    )
    assert packaged.split("\n\n") == paragraphs
    assert (setup["metadata"]["license"], setup["metadata"]["license_files"]) == ("MIT", "LICENSE")


def test_faults_are_reported_to_the_packages_maintainer() -> None:
    (maintainer,) = re.findall(r"^Maintainer: .* <(.*)>$", written("control"), re.MULTILINE)
    assert set(re.findall(r"[\w.]+@[\w.]+\w", (PROJECT / "SECURITY.md").read_text())) == {maintainer}


def test_what_the_package_documents_is_there() -> None:
    patterns = written("koder-gateway.docs").split()
    assert {"CHANGELOG.md", "README.md", "SECURITY.md", "docs/*.md", "docs/*.png"} == set(patterns)
    assert [pattern for pattern in patterns if not list(PROJECT.glob(pattern))] == []


@pytest.mark.skipif(not shutil.which("dh_installdocs"), reason="debhelper is not installed")
def test_the_packages_own_changelog_stays_beside_the_projects(tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__"))
    for command in (["dh_installdocs"], ["debian/rules", "override_dh_installchangelogs"]):
        subprocess.run(command, cwd=copy, check=True, stdout=subprocess.DEVNULL)
    installed = copy / "debian" / "koder-gateway" / "usr" / "share" / "doc" / "koder-gateway"
    # Its older entries are left out some day.
    assert (installed / "changelog").read_text().splitlines()[0] == written("changelog").splitlines()[0]
    assert (installed / "CHANGELOG.md").read_text() == (PROJECT / "CHANGELOG.md").read_text()


def test_the_samples_are_the_conffiles(service: configparser.SectionProxy) -> None:
    installed = dict(line.split() for line in written("koder-gateway.install").splitlines())
    assert installed == {
        "etc/koder-gateway.toml": "etc/koder-gateway",
        "etc/tenants.toml": "etc/koder-gateway",
        "docs/koder-gateway.schema.json": "usr/share/koder-gateway",
        "docs/tenants.schema.json": "usr/share/koder-gateway",
    }
    # Editors find the schema by the first line of each file.
    for name in ("koder-gateway", "tenants"):
        first = (PROJECT / "etc" / f"{name}.toml").read_text().partition("\n")[0]
        assert first == f"#:schema /usr/share/koder-gateway/{name}.schema.json"
    for source in installed:
        assert (PROJECT / source).is_file()
    option = "--config /etc/koder-gateway/koder-gateway.toml"
    assert option in service["ExecStart"]
    assert option in service["ExecStartPre"]


def test_the_unit_runs_what_the_package_installs(service: configparser.SectionProxy) -> None:
    (root,) = re.findall(r"DH_VIRTUALENV_INSTALL_ROOT = (\S+)", written("rules"))
    target, link = written("koder-gateway.links").split()
    assert service["ExecStart"].startswith(f"{root}/koder-gateway/bin/koder-gateway run ")
    assert service["ExecStartPre"].startswith(f"/{link} check ")
    assert f"/{target}" == f"{root}/koder-gateway/bin/koder-gateway"


def test_the_unit_uses_options_that_the_plugin_has(service: configparser.SectionProxy) -> None:
    known = {option.rstrip("=") for option in Options().longOpt}
    used = service["ExecStart"].partition(" run ")[2] + written("koder-gateway.default")
    options = set(re.findall(r"--([a-z][a-z-]*)", used))
    assert "config" in options
    assert options <= known


def test_the_unit_takes_more_options_from_the_file_for_them(service: configparser.SectionProxy) -> None:
    assert service["EnvironmentFile"] == "-/etc/default/koder-gateway"
    assert service["ExecStart"].endswith(" $KODER_GATEWAY_OPTIONS")
    assert re.search(r'^KODER_GATEWAY_OPTIONS=""$', written("koder-gateway.default"), re.MULTILINE)


def test_the_unit_leaves_time_to_drain(service: configparser.SectionProxy) -> None:
    assert seconds(service["TimeoutStopSec"]) > Settings().timeouts.drain


def test_the_unit_says_ready_reload_and_stop_as_the_daemon_does(service: configparser.SectionProxy) -> None:
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert service["ExecReload"] == "/usr/lib/koder-gateway/bin/koder-gateway reload --pid $MAINPID"
    # SIGTERM is systemd's default, and the daemon's.
    assert "KillSignal" not in service


def test_the_user_of_the_unit_is_made_and_removed(service: configparser.SectionProxy) -> None:
    assert service["User"] == service["Group"] == "koder-gateway"
    assert re.search(r"adduser .*\\\n.* koder-gateway$", written("koder-gateway.postinst"), re.MULTILINE)
    assert re.search(r"deluser .* koder-gateway ", written("koder-gateway.postrm"))
    assert f"rm -rf /var/lib/{service['StateDirectory']} /etc/koder-gateway\n" in written("koder-gateway.postrm")


@pytest.mark.parametrize(
    ("name", "port", "key", "endpoint"),
    [
        ("koder-gateway.socket", "443", "port", "tls+systemd:domain=INET6:name=https"),
        ("koder-gateway.koder-gateway-http.socket", "80", "redirect_port", "systemd:domain=INET6:name=http"),
    ],
)
def test_the_sockets_are_those_of_the_endpoints_that_they_name(
    tmp_path: Path, name: str, port: str, key: str, endpoint: str
) -> None:
    unit = written(name)
    assert f"\nListenStream={port}\n" in unit
    assert f"\nFileDescriptorName={endpoint.rpartition('=')[2]}\n" in unit
    assert f'listen.{key} = "{endpoint}"' in unit
    assert "\nService=koder-gateway.service\n" in unit
    config = tmp_path / "koder-gateway.toml"
    config.write_text(f'[listen]\n{key} = "{endpoint}"\n')
    assert getattr(load(config).listen, key) == (endpoint,)


def test_a_repaired_file_needs_no_reset_of_the_unit() -> None:
    """systemd counts no failed starts, and each is tried again."""
    unit = written("koder-gateway.service")
    assert re.search(r"^\[Unit\]\n(?:[^\[].*\n|\n)*StartLimitIntervalSec=0$", unit, re.MULTILINE)
    assert re.search(r"^Restart=on-failure$", unit, re.MULTILINE)


def test_a_fresh_install_listens_to_its_own_machine_alone(tmp_path: Path) -> None:
    """And is otherwise the sample; what the file says of it is where an operator looks."""
    sample = PROJECT / "etc" / "koder-gateway.toml"
    done = subprocess.run(["sed", "-f", DEBIAN / "fresh.sed", sample], capture_output=True, text=True, check=True)
    fresh = tmp_path / "koder-gateway.toml"
    fresh.write_text(done.stdout)
    settings = load(fresh)
    assert settings.listen.port == ("ssl:443:interface=127.0.0.1",)
    assert replace(settings.listen, port=load(sample).listen.port) == load(sample).listen
    assert 'port = "ssl:443".\n' in done.stdout
    assert re.search(
        r"^\tsed -i -f debian/fresh.sed debian/koder-gateway/etc/\S+/koder-gateway.toml$", written("rules"), re.M
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.suffix[1:])
def test_maintainer_scripts_are_sound(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[:2] == ["#!/bin/sh", "set -e"]
    assert "#DEBHELPER#" in lines
    subprocess.run(["sh", "-n", script], check=True)


def test_every_maintainer_script_is_tested() -> None:
    assert {script.suffix for script in SCRIPTS} == {".postinst", ".prerm", ".postrm"}


@pytest.mark.parametrize("script", ["rules", "test-installed", "test-reproducible"])
def test_scripts_are_executable(script: str) -> None:
    assert (DEBIAN / script).stat().st_mode & 0o111


def test_the_manual_pages_are_installed() -> None:
    pages = {str(path.relative_to(PROJECT)) for path in MANUAL.iterdir()}
    assert set(written("koder-gateway.manpages").split()) == pages


def page(name: str) -> str:
    """A manual page with the escapes of roff undone."""
    return (MANUAL / name).read_text().replace(r"\-", "-").replace(r"\(dq", '"')


def test_the_manual_has_every_option_of_the_daemon() -> None:
    manual = page("koder-gateway.8")
    for option in (name.rstrip("=") for name in Options().longOpt):
        assert option in EVERY_PLUGINS or re.search(rf"--{option}\b", manual), option


def documented() -> dict[str, list[str]]:
    """For each section of the configuration the lines that introduce its keys."""
    headings = re.split(r"^\.S[HS] \[+(\w+)\]+$", page("koder-gateway.toml.5"), flags=re.MULTILINE)[1:]
    sections = zip(headings[::2], headings[1::2], strict=True)
    return {name: re.findall(r"^\.TP\n\.BR? (.*)$", text, re.MULTILINE) for name, text in sections}


def bare(text: str) -> str:
    return re.sub(r'[][" ]', "", text)


@pytest.mark.parametrize("row", [*schema(), *tenants_schema()], ids=lambda row: row.key)
def test_the_manual_has_every_key_and_its_default(row: Row) -> None:
    section, _, rest = re.sub(r"\[\]|\.NAME", "", row.key).partition(".")
    lines = documented()[section]
    key = rest.rpartition(".")[2]
    if key:
        (line,) = (line for line in lines if key in re.findall(r"\w+", line.partition("(")[0]))
        assert bare(row.default or "") in bare(line)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("path", sorted(MANUAL.iterdir()), ids=lambda path: path.name)
def test_the_manual_is_sound(path: Path) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", path]
    assert subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr == ""


systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@systemd
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "koder-gateway.service"
    # The files that it runs are not on this machine.
    unit.write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", written(unit.name), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@systemd
@pytest.mark.parametrize("name", ["koder-gateway.socket", "koder-gateway.koder-gateway-http.socket"])
def test_systemd_understands_the_sockets(tmp_path: Path, name: str) -> None:
    unit = tmp_path / f"{'koder-gateway-http' if 'http' in name else 'koder-gateway'}.socket"
    unit.write_text(written(name))
    service = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", written("koder-gateway.service"), flags=re.MULTILINE)
    (tmp_path / "koder-gateway.service").write_text(service)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@systemd
@pytest.mark.parametrize(("drop_in", "most"), [("", 15), ("no-capabilities.conf", 12)])
def test_the_unit_is_as_confined_as_systemd_can_tell(tmp_path: Path, drop_in: str, most: int) -> None:
    """In tenths. The unit says of each finding that is left why it is left."""
    unit = tmp_path / "koder-gateway.service"
    shutil.copy(DEBIAN / unit.name, unit)
    if drop_in:
        (tmp_path / f"{unit.name}.d").mkdir()
        shutil.copy(EXAMPLES / drop_in, tmp_path / f"{unit.name}.d")
    command = ["systemd-analyze", "security", "--offline=true"]
    done = subprocess.run([*command, f"--threshold={most}", unit], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    found = json.loads(subprocess.check_output([*command, "--json=short", unit]))
    left = {each["name"] for each in found if each["exposure"]}
    explained = " ".join(line for line in unit.read_text().splitlines() if line.startswith("#"))
    settings = {name.partition("=")[0] for name in left}
    assert {name for name in settings if not re.search(rf"\b{name}\b", explained)} == set()
    assert ("AmbientCapabilities=" in left) == (not drop_in)


@systemd
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_systemd_understands_the_drop_ins(tmp_path: Path, name: str) -> None:
    unit = tmp_path / "koder-gateway.service"
    unit.write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", written(unit.name), flags=re.MULTILINE))
    (tmp_path / f"{unit.name}.d").mkdir()
    shutil.copy(EXAMPLES / name, tmp_path / f"{unit.name}.d")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], stderr=subprocess.PIPE, text=True)
    # Debian 12's systemd takes the type for a mistake.
    old = "Failed to parse service type" in done.stderr and name == "notify-reload.conf"
    assert old or (done.returncode, done.stderr) == (0, ""), done.stderr


def test_the_watchdog_leaves_time_for_several_keep_alives(service: configparser.SectionProxy) -> None:
    assert seconds(service["WatchdogSec"]) == 10
    # The restart that follows.
    assert service["Restart"] == "on-failure"


def test_the_example_of_credentials_passes_what_it_names() -> None:
    text = (EXAMPLES / "credentials.conf").read_text()
    passed = set(re.findall(r"^LoadCredential=([^:]+):", text, re.MULTILINE))
    named = set(re.findall(r'"credential:([^"]*)"', text))
    assert named - {"", "NAME"} <= passed
    assert "credential:" in text


def test_the_drop_ins_are_installed() -> None:
    assert written("koder-gateway.examples") == "debian/examples/*.conf\n"


@pytest.fixture
def contents(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module by which `make test-deb` looks into the package."""
    monkeypatch.syspath_prepend(str(DEBIAN))
    return importlib.import_module("testkit.contents")


def test_the_list_of_the_packages_files_notices_each_that_is_wrong(contents: Any) -> None:
    wanted = contents.patterns(written("expected-files"))
    files = {pattern.replace("[0-9]*", "11").replace("*", "3.11"): 1 for pattern in wanted}
    assert contents.faults_of(files, wanted) == []
    inside = "usr/lib/koder-gateway/lib/python3.11/site-packages/twisted"
    for unwanted in (f"{inside}/test/test_a.py", f"{inside}/__pycache__/a.py", f"{inside}/a.h"):
        assert f"{unwanted} does not belong there" in contents.faults_of({**files, unwanted: 1}, wanted)
    assert contents.faults_of({**files, "usr/games/a": 1}, wanted) == ["nothing expects usr/games/a"]
    gone = files.keys() - {"usr/bin/koder-gateway"}
    assert contents.faults_of(dict.fromkeys(gone, 1), wanted) == ["usr/bin/koder-gateway is not there"]


def test_the_list_has_what_the_package_installs() -> None:
    listed = set(written("expected-files").split())
    names = {"koder-gateway.service", "koder-gateway.socket", "koder-gateway-http.socket"}
    assert {f"lib/systemd/system/{name}" for name in names} <= listed
    assert {f"usr/share/man/man{path.suffix[1:]}/{path.name}.gz" for path in MANUAL.iterdir()} <= listed
    shells = ("bash-completion/completions/", "zsh/vendor-completions/_", "fish/vendor_completions.d/")
    for folder in shells:
        (line,) = re.findall(rf"^\t.*\$\(share\)/({re.escape(folder)}koder-gateway\S*)$", written("rules"), re.M)
        assert f"usr/share/{line}" in listed


@pytest.mark.skipif(not shutil.which("dh_installsystemd"), reason="debhelper is not installed")
def test_an_upgrade_leaves_the_sockets_alone(tmp_path: Path) -> None:
    """They hold the connections of the clients that come meanwhile, and nothing would start them again."""
    copy = tmp_path / "project"
    shutil.copytree(DEBIAN, copy / "debian", ignore=shutil.ignore_patterns("koder-gateway", ".debhelper"))
    subprocess.run(["debian/rules", "override_dh_installsystemd"], cwd=copy, check=True, stdout=subprocess.DEVNULL)
    made = (copy / "debian" / ".debhelper" / "generated" / "koder-gateway").iterdir()
    asked = re.findall(r"deb-systemd-invoke (.*) >", "\n".join(path.read_text() for path in sorted(made)))
    assert asked == ["$_dh_action 'koder-gateway.service'", "stop 'koder-gateway.service'"]


def test_the_sockets_stop_before_the_service() -> None:
    """Else they would start it again when the package is removed."""
    script = written("koder-gateway.prerm")
    assert script.index("stop koder-gateway.socket koder-gateway-http.socket") < script.index("#DEBHELPER#")


def test_autopkgtest_finds_its_tests() -> None:
    """By the specification of the format: paragraphs with known fields, each test an executable file."""
    text = re.sub(r"^#.*\n", "", written("tests/control"), flags=re.MULTILINE)
    paragraphs = [dict(line.split(": ", 1) for line in each.splitlines()) for each in text.strip().split("\n\n")]
    named = [name for each in paragraphs for name in each["Tests"].split()]
    assert {field for each in paragraphs for field in each} <= {"Tests", "Depends", "Restrictions"}
    assert all("@" in each["Depends"].replace(",", " ").split() for each in paragraphs)
    known = {"needs-root", "isolation-container", "allow-stderr"}
    assert {word.rstrip(",") for each in paragraphs for word in each["Restrictions"].split()} <= known
    assert {path.name for path in (DEBIAN / "tests").iterdir()} == {"control", *named}
    for name in named:
        assert (DEBIAN / "tests" / name).stat().st_mode & 0o111
        subprocess.run(["sh", "-n", DEBIAN / "tests" / name], check=True)
