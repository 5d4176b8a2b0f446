"""What can be said of the image without building it; `make test-container` builds it and serves a request."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

from koder_gateway.tap import Options
from koder_gateway.tools import command_line
from tests.kit.containerfile import assignments, read_stages

PROJECT = Path(__file__).parents[2]
STAGES = read_stages(PROJECT / "Containerfile")
BUILD, IMAGE = STAGES
INSTRUCTIONS = {
    *("RUN", "COPY", "LABEL", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def test_each_instruction_is_one() -> None:
    assert {step.name for stage in STAGES for step in stage.steps} <= INSTRUCTIONS


def test_what_it_copies_is_there_and_not_ignored() -> None:
    ignored = (PROJECT / ".containerignore").read_text().split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[0] == "*"
    copied = [name for step in BUILD.steps if step.name == "COPY" for name in step.text.split()[:-1]]
    assert set(copied) == kept
    assert [name for name in copied if not (PROJECT / name).exists()] == []
    assert any(fnmatch.fnmatch("koder_gateway/__pycache__", pattern) for pattern in ignored[1:])


def test_the_build_needs_nothing_but_what_is_copied() -> None:
    """What setup.cfg and MANIFEST.in name, as far as a wheel needs it."""
    copied = {name for step in BUILD.steps if step.name == "COPY" for name in step.text.split()[:-1]}
    setup = (PROJECT / "setup.cfg").read_text()
    named = set(re.findall(r"^(?:long_description = file:|license_files =) *(\S+)$", setup, re.MULTILINE))
    packages = {
        name.partition(".")[0] for name in re.findall(r"^    ([a-z_]+(?:\.[a-z_0-9]+)*)$", setup, re.MULTILINE)
    }
    assert named | (packages & {"koder_gateway", "twisted"}) <= copied


def test_nothing_of_the_build_is_left_but_the_environment() -> None:
    (copy,) = [step for step in IMAGE.steps if step.name == "COPY"]
    assert copy.text == "--from=build /opt/koder-gateway /opt/koder-gateway"
    assert " uninstall --yes pip setuptools" in " ".join(step.text for step in BUILD.steps)


def test_it_is_not_root_and_its_user_is_a_number() -> None:
    user, group = map(int, IMAGE.only("USER").text.split(":"))
    assert user >= 1000
    assert group >= 1000
    after = [step.name for step in IMAGE.steps][[step.name for step in IMAGE.steps].index("USER") :]
    assert "RUN" not in after


def test_it_writes_to_its_state_folder_alone() -> None:
    state = assignments(IMAGE.only("ENV").text)["STATE_DIRECTORY"]
    assert IMAGE.only("VOLUME").text == IMAGE.only("WORKDIR").text == state
    user, group = IMAGE.only("USER").text.split(":")
    assert f"install -d -o {user} -g {group} -m 700 {state}" in IMAGE.only("RUN").text


def test_no_shell_runs_it() -> None:
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        words = IMAGE.only(name).words
        assert words is not None, name
        assert {"sh", "/bin/sh", "bash", "-c"}.isdisjoint(words)


def test_its_end_is_a_drain() -> None:
    assert IMAGE.only("STOPSIGNAL").text == "SIGTERM"


def test_its_command_line_is_the_gateways() -> None:
    started = IMAGE.only("ENTRYPOINT").words
    assert started == ["/usr/bin/koder-gateway", "run"]
    options = Options()
    options.parseOptions(IMAGE.only("CMD").words)
    assert options["ports"] == ["ssl:8443"]
    asked = IMAGE.only("HEALTHCHECK").words
    assert asked is not None
    assert asked[0] == started[0]
    health = command_line().parse_args(asked[1:])
    # It asks the admin port that the command opens, which the ports of the image include.
    assert options["admin-port"] == "tcp:9100:interface=127.0.0.1"
    assert health.admin == "http://127.0.0.1:9100"
    assert IMAGE.only("EXPOSE").text.split() == ["8443", "9100"]


def test_the_steps_are_sound_shell() -> None:
    for step in (step for stage in STAGES for step in stage.steps if step.name == "RUN"):
        subprocess.run(["sh", "-n", "-c", step.text], check=True)
