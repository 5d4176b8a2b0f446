"""With what gateways that share limits hash what clients send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from koder_gateway.config.loading import load
from koder_gateway.tree.limits_store import make_sharing, secret_of
from koder_gateway.wire.clock import CoarseClock

_ANY: Any = None


def secret(folder: Path, password: str = "", prefix: str = "kg:") -> bytes:
    """That of a gateway with this configuration."""
    file = folder / "koder-gateway.toml"
    lines = ["[limits_store]", 'url = "redis://127.0.0.1"', f'prefix = "{prefix}"']
    if password:
        (folder / "password").write_text(password)
        lines.append('password_file = "password"')
    file.write_text("\n".join(lines))
    clock = CoarseClock(0.0, lambda: 0.0)
    return secret_of(make_sharing(load(file), MemoryReactorClock(), clock, _ANY, None))


def test_gateways_that_share_limits_hash_alike(tmp_path: Path) -> None:
    assert secret(tmp_path, "a") == secret(tmp_path, "a")
    assert secret(tmp_path) == secret(tmp_path)


def test_the_password_and_the_prefix_make_it_another(tmp_path: Path) -> None:
    assert len({secret(tmp_path), secret(tmp_path, "a"), secret(tmp_path, "b"), secret(tmp_path, "a", "x:")}) == 4
