"""What is left of a file with faults, for those who look at what it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.checks import remaining_faults
from koder_gateway.config import ConfigurationError, PartialSettings, load, load_partially, schema

SOUND = """
[tenants]
base_domain = "a.example"
[timeouts]
drain = "5s"
head = "soon"
[services]
auth = "http://127.0.0.1:1"
identity = 5
mine = 5
[listen]
port = ["tcp:0", "nonsense", 5]
admin_port = "tcp:1"
[[routes]]
path = "/a"
service = "auth"
[[routes]]
path = "/b"
service = "identity"
[[routes]]
path = 5
service = "mine"
"""


def of(folder: Path, text: str) -> PartialSettings:
    path = folder / "koder-gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        load(path)
    part = load_partially(path)
    assert part is not None
    return part


def test_what_can_be_read_is_kept_and_the_rest_is_known(tmp_path: Path) -> None:
    part = of(tmp_path, SOUND)
    settings = part.settings
    assert part.unread == {"timeouts.head", "services.identity", "services.mine", "listen.port", "routes"}
    assert (settings.tenants.base_domain, settings.timeouts.drain, settings.timeouts.head) == ("a.example", 5, 10)
    assert settings.services["auth"].urls == ("http://127.0.0.1:1",)
    assert not {"identity", "mine"} & set(settings.services), "not that of the default instead"
    assert [route.service for route in settings.routes] == ["auth"]
    assert part.endpoints == {"port": ("tcp:0",), "redirect_port": (), "admin_port": ("tcp:1",)}
    assert part.given == {"auth", "identity", "mine"}
    assert part.routed == {"auth", "identity", "mine"}


def test_a_service_is_misspelled_whatever_else_is_wrong_with_it(tmp_path: Path) -> None:
    part = of(tmp_path, "services.identiy = 5\nservices.billing = 5\nservices.sesion = 'http://127.0.0.1:1'\n")
    assert [at for at, _ in part.misspelled()] == ["services.identiy", "services.sesion"]
    routes = "[[routes]]\npath = '/a'\nservice = 'identiy'\n[[routes]]\npath = 5\nservice = 'sesion'\n"
    part = of(tmp_path, "[services]\nidentiy = 5\nsesion = 'http://127.0.0.1:1'\n" + routes)
    assert list(part.misspelled()) == []


def test_of_what_is_no_toml_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[")
    assert load_partially(tmp_path / "a.toml") is None
    assert load_partially(tmp_path / "missing.toml") is None


@pytest.mark.parametrize("value", ["5", '"x"', "[]", "[{}]", "{ a = 1 }", "1979-05-27"])
def test_no_value_of_any_key_is_too_strange(tmp_path: Path, value: str) -> None:
    """Whoever looks beside a fault must not fail by it."""
    path = tmp_path / "koder-gateway.toml"
    names = [row.key.replace(".NAME.", ".identity.") for row in schema()]
    for name in {*names, *(name.partition(".")[0].removesuffix("[]") for name in names)}:
        section, array, key = name.partition("[].")
        path.write_text(f"[[{section}]]\n{key} = {value}\n" if array else f"{name} = {value}\n")
        assert all(isinstance(each, str) for each in remaining_faults(path))
