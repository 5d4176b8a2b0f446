"""The identity platform, once for each door, and what its clients need. Only `make test-e2e` collects these tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kit.identity_platform import DOORS, Application, Platform

# Without what npm installs there is nothing to test: `make test` leaves this folder out.
collect_ignore_glob = [] if os.environ.get("KODER_TEST_E2E") else ["test_*.py"]


@pytest.fixture(scope="session", params=DOORS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The whole of it by one door."""
    with Application() as application:
        folder = tmp_path_factory.mktemp(request.param)
        with Platform(folder, request.param, application).running() as platform:
            yield platform


@pytest.fixture(scope="session", params=["http/1.1", "http/2"])
def protocol(request: pytest.FixtureRequest) -> str:
    """What the client speaks."""
    return str(request.param)
