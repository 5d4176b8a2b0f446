"""docs/context.md: the checks for services in Python, Node and Go accept what the gateway signs, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import Any

import pytest

from koder_gateway.context import ContextError
from koder_gateway.policy.signed_context import ContextSigner, public_jwk
from koder_gateway.policy.signing_keys import SigningKey
from tests.kit.signing_keys import EDDSA, ES256, token

DOCS = Path(__file__).parents[2] / "docs"
HOST = "koder.id.koder.dev"
JWKS = {"keys": [public_jwk(EDDSA), public_jwk(ES256)]}


def claims(**changed: object) -> dict[str, object]:
    now = int(time())
    said = {"iss": "koder-gateway", "iat": now, "exp": now + 60, "tenant": "koder", "ip": "192.0.2.1", "host": HOST}
    return {**said, **changed}


def swapped(text: str) -> str:
    """The token with the claims of another."""
    head, _, signature = text.split(".")
    return f"{head}.{token(claims(tenant='acme')).split('.')[1]}.{signature}"


FORGED: Mapping[str, Callable[[], str]] = {
    "expired": lambda: token(claims(iat=int(time()) - 120, exp=int(time()) - 60)),
    "ahead": lambda: token(claims(iat=int(time()) + 60, exp=int(time()) + 120)),
    "for another host": lambda: token(claims(host="acme.id.koder.dev")),
    "of another issuer": lambda: token(claims(iss="acme")),
    "of another kind": lambda: token(claims(), typ="JWT"),
    "unsigned": lambda: token(claims(), alg="none").rpartition(".")[0] + ".",
    "with a shared secret": lambda: token(claims(), alg="HS256"),
    "by an unknown key": lambda: token(claims(), kid="unknown"),
    "by another key": lambda: token(claims(), kid=public_jwk(ES256)["kid"], alg="ES256"),
    "with other claims": lambda: swapped(token(claims())),
    "with a critical member": lambda: token(claims(), crit=["exp"]),
    "cut": lambda: token(claims())[:-4],
    "nothing": lambda: "",
}


class Command:
    """One of the examples; a test without its language is skipped."""

    def __init__(self, folder: Path, language: str) -> None:
        self._keys = folder / "jwks.json"
        self._keys.write_text(json.dumps(JWKS))
        program = shutil.which(language)
        if program is None:
            pytest.skip(f"{language} is not installed")
        if language == "go":
            built = folder / "context"
            subprocess.run([program, "build", "-o", built, DOCS / "examples/context.go"], check=True, cwd=folder)
            self._words = [str(built)]
        else:
            self._words = [program, str(DOCS / "examples/context.mjs")]

    def check(self, text: str, host: str = HOST) -> subprocess.CompletedProcess[str]:
        """What it says of a token."""
        return subprocess.run([*self._words, self._keys, host, text], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=["node", "go"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tmp_path_factory.mktemp("context"), request.param)


@pytest.mark.parametrize("key", [EDDSA, ES256], ids=lambda key: key.algorithm)
def test_what_the_gateway_signs_is_accepted(key: SigningKey, command: Command) -> None:
    line = ContextSigner(key, (), time).field(b"192.0.2.1", b"koder", HOST.encode()).line()
    text = line.decode().removeprefix("X-Koder-Context: ").strip()
    for host in (HOST, "KODER.id.koder.dev.:8443"):
        done = command.check(text, host)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(said in done.stdout for said in ("koder", "192.0.2.1", HOST))


@pytest.mark.parametrize("kind", FORGED)
def test_nothing_else_is(kind: str, command: Command) -> None:
    done = command.check(FORGED[kind]())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr


def test_the_code_for_python_does_the_same() -> None:
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / "context.md").read_text(), re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {"published": lambda: JWKS}
    exec(code.replace("PublishedKeys(fetch)", "PublishedKeys(published)"), names)  # noqa: S102 (the page's own example)
    found = names["context_of"]({"X-Koder-Context": token(claims()), "Host": HOST})
    assert (found.tenant, found.ip, found.host) == ("koder", "192.0.2.1", HOST)
    for forged in FORGED.values():
        with pytest.raises(ContextError):
            names["context_of"]({"X-Koder-Context": forged(), "Host": HOST})
    with pytest.raises(ContextError):
        names["context_of"]({"Host": HOST})
