"""`[tls]` keys about browsers and clients: what is taken, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from koder_gateway.config import ConfigurationError, Settings, load
from koder_gateway.tree.compose import make_policy
from tests.kit.authority import CLIENT, Authority

YEAR = "max-age=31536000"


def read(folder: Path, text: str) -> Settings:
    path = folder / "koder-gateway.toml"
    path.write_text(text)
    return load(path, environ={"STATE_DIRECTORY": str(folder / "state")})


def fault(folder: Path, text: str) -> str:
    """The one line that is said of a file."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    (line,) = caught.value.faults
    assert "\n" not in line
    assert line.startswith(f"{folder / 'koder-gateway.toml'}: tls.")
    return line.partition(": tls.")[2]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("true", YEAR),
        ("false", ""),
        ('"365d"', YEAR),
        ('"12h"', "max-age=43200"),
        ('"1.5h"', "max-age=5400"),
        ("300", "max-age=300"),
        ('"300"', "max-age=300"),
        ("0", "max-age=0"),
        ('"0"', "max-age=0"),
        ("63072000", "max-age=63072000"),
        ('"max-age=31536000; includeSubDomains; preload"', f"{YEAR}; includeSubDomains; preload"),
        ('"includesubdomains ;MAX-AGE = 60"', "includeSubDomains; max-age=60"),
        ("""'max-age="60";;'""", "max-age=60"),
    ],
)
def test_what_hsts_takes(tmp_path: Path, value: str, field: str) -> None:
    settings = read(tmp_path, f"[tls]\nhsts = {value}\n")
    assert settings.tls.hsts == field
    line = f"Strict-Transport-Security: {field}\r\n" if field else ""
    assert make_policy(settings, None).hsts == line.encode()


def test_the_default_is_a_year(tmp_path: Path) -> None:
    assert read(tmp_path, "").tls.hsts == Settings().tls.hsts == YEAR


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1.5", "hsts: 1.5 is not a valid max-age; write true, false, "),
        ("[]", "hsts: a list is not a valid max-age; "),
        ("-1", "hsts: -1 is not a number of whole seconds up to ten years; "),
        ("315360001", "hsts: 315360001 is not a number of whole seconds up to ten years; "),
        ('"9999999999999999999999"', 'hsts: "9999999999999999999999" is not a number of whole seconds up to ten'),
        ('"500ms"', 'hsts: "500ms" is not a number of whole seconds'),
        ('"1y"', 'hsts: "1y" has an unknown unit; '),
        ('"2 days"', 'hsts: "2 days" is not a duration; '),
        ('""', 'hsts: "" has no max-age; write true, false, '),
        ('"yes"', 'hsts: "yes" has an unknown directive "yes"; '),
        ('"includeSubDomains"', 'hsts: "includeSubDomains" has no max-age; '),
        ('"max-age"', 'hsts: "max-age" has a max-age that is not a number of seconds; '),
        ('"max-age=1y"', 'hsts: "max-age=1y" has a max-age that is not a number of seconds; '),
        ('"max-age=-1"', 'hsts: "max-age=-1" has a max-age that is not a number of seconds; '),
        ('"max-age=9999999999"', 'hsts: "max-age=9999999999" is not a number of whole seconds up to ten years; '),
        ('"max-age=1; max-age=2"', 'hsts: "max-age=1; max-age=2" has max-age twice; '),
        (
            '"max-age=1; includeSubDomains=1"',
            'hsts: "max-age=1; includeSubDomains=1" gives includeSubDomains a value',
        ),
        ('"max-age=1; includeSubDomain"', 'has an unknown directive "includeSubDomain"; did you mean "includeSubD'),
        ('"max-age=31536000; preload"', "is not accepted by preload lists; add includeSubDomains and"),
        ('"max-age=300; includeSubDomains; preload"', "is not accepted by preload lists; "),
        ('"max-age=1\\r\\nX-Evil: 1"', "has a max-age that is not a number of seconds; "),
        ('"max-age=1; \\u00fc"', "has an unknown directive "),
    ],
)
def test_what_hsts_does_not_take(tmp_path: Path, value: str, message: str) -> None:
    assert message in fault(tmp_path, f"[tls]\nhsts = {value}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with authorities in `ca.pem` and what is no authority in `leaf.pem`."""
    authority = Authority(tmp_path, "CA")
    authority.issue_odd("a.client", use=CLIENT, path=tmp_path / "leaf.pem")
    (tmp_path / "empty.pem").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ('"required"', (("*", "required"),)),
        ('"optional"', (("*", "optional"),)),
        ('{ "Admin.ID.koder.dev" = "required" }', (("admin.id.koder.dev", "required"),)),
        (
            '{ "a.example" = "optional", "*.Partner.example" = "required", "*" = "optional" }',
            (("a.example", "optional"), ("*.partner.example", "required"), ("*", "optional")),
        ),
    ],
)
def test_who_may_be_asked(folder: Path, value: str, patterns: tuple[tuple[str, str], ...]) -> None:
    settings = read(folder, f'[tls]\nclient_ca = "ca.pem"\nclient_auth = {value}\n')
    assert settings.tls.client_auth == patterns
    assert settings.tls.client_ca is not None
    assert settings.tls.client_ca.path == folder / "ca.pem"
    auth = make_policy(settings, None).client_auth
    assert auth
    assert auth.digest == settings.tls.client_ca.digest


def test_nobody_is_asked_by_default(tmp_path: Path) -> None:
    settings = read(tmp_path, '[tls]\nclient_ca = ""\nclient_auth = ""\n')
    assert (settings.tls.client_ca, settings.tls.client_auth) == (None, ())
    assert settings.tls == Settings().tls
    assert not make_policy(settings, None).client_auth


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('client_ca = "ca.pem"', "client_auth: is missing, so client_ca has no effect; "),
        ('client_ca = "ca.pem"\nclient_auth = ""', "client_auth: is missing, so client_ca has no effect; "),
        ('client_ca = "ca.pem"\nclient_auth = {}', "client_auth: is missing, so client_ca has no effect; "),
        ('client_auth = "required"', "client_ca: is missing, and client_auth needs it; "),
        ('client_ca = "none.pem"\nclient_auth = "required"', 'client_ca: "none.pem": no such file'),
        ('client_ca = "."\nclient_auth = "required"', 'client_ca: "." is not a file; '),
        ('client_ca = 1\nclient_auth = "required"', "client_ca: 1 is not a string; "),
        ('client_ca = "empty.pem"\nclient_auth = "required"', 'client_ca: "empty.pem": no certificate in it; '),
        ('client_ca = "leaf.pem"\nclient_auth = "required"', 'has the certificate of "CN=a.client", which is no'),
        ('client_ca = "ca.pem"\nclient_auth = "always"', 'client_auth: "always" is not an accepted value'),
        ('client_ca = "ca.pem"\nclient_auth = "requird"', 'did you mean "required"?'),
        ('client_ca = "ca.pem"\nclient_auth = true', 'client_auth: true is neither a mode nor a table of hosts; '),
        ('client_ca = "ca.pem"\nclient_auth = { a = "always" }', 'client_auth.a: "always" is not an accepted value'),
        ('client_ca = "ca.pem"\nclient_auth = { a = true }', "client_auth.a: true is not a string; "),
        ('client_ca = "ca.pem"\nclient_auth = { "a b" = "required" }', 'client_auth."a b": "a b" is not a domain'),
        ('client_ca = "ca.pem"\nclient_auth = { "a.*.b" = "required" }', 'client_auth."a.*.b": is not a host'),
        ('client_ca = "ca.pem"\nclient_auth = { "*a" = "required" }', 'client_auth."*a": is not a host pattern; '),
        ('client_ca = "ca.pem"\nclient_auth = { "*." = "required" }', 'client_auth."*.": "" is not a domain name; '),
        (
            'client_ca = "ca.pem"\nclient_auth = { "a.b" = "required", "A.b" = "optional" }',
            'client_auth."A.b": is the same host again; ',
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_the_rest(folder: Path, text: str, message: str) -> None:
    assert message in fault(folder, f"[tls]\n{text}\n")
