"""Draws the picture of the status page in the documentation: `make screenshot`.

A gateway in a process of its own with four services, and clients for a minute and a half; one limit is narrow.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from koder_gateway.ops.status_document import SCHEMA
from tests.kit.browser import Browser, Page
from tests.kit.clients import BASE_DOMAIN
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin

_LIMITS: Final = """
[[limits]]
name = "login"
key = ["tenant", "ip"]
rate = "60/m"
burst = 20
paths = ["/auth"]

[[limits]]
name = "traffic"
key = ["ip"]
rate = "200/s"
burst = 2000

[[limits]]
name = "tenant-hour"
key = ["tenant"]
rate = "1500/h"
mode = "shadow"
"""
_TENANTS: Final = ("acme", "globex", "initech", "umbrella", "hooli")
# Paths that are asked for, each with its weight.
_PATHS: Final = {"/identity/7": 40, "/oauth2/token": 12, "/session": 8, "/auth/login": 3, "/nowhere": 0.5}
_CLIENTS: Final = 4


def _ask(gateway: GatewayProcess, ends: threading.Event, seed: int) -> None:
    """Ask for one tenant after the other, until the end."""
    dice = random.Random(seed)
    with gateway.connect() as client:
        while not ends.wait(dice.uniform(0.005, 0.03)):
            path = dice.choices(list(_PATHS), list(_PATHS.values()))[0]
            tenant = dice.choices(_TENANTS, (8, 4, 2, 1, 1))[0]
            client.send(f"GET {path} HTTP/1.1\r\nHost: {tenant}.{BASE_DOMAIN}\r\n\r\n".encode())
            client.read()


def _started(stack: ExitStack, folder: Path) -> GatewayProcess:
    origins = {name: stack.enter_context(Origin()) for name in ("auth", "identity", "oauth2", "session")}
    registry = "".join(f'[[tenant]]\nslug = "{slug}"\n' for slug in _TENANTS)
    (folder / "tenants.toml").write_text(registry)
    services = {name: origin.url for name, origin in origins.items()}
    config = configuration(services, {"tenants": {"registry": "tenants.toml"}}, _LIMITS)
    return stack.enter_context(GatewayProcess(folder, config, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS)))


def _drawn(page: Page, url: str, path: Path, seconds: float) -> None:
    page.resize(1280, 1160)
    page.open(url)
    page.until(f"points.length > {seconds / 2}", "the plots are full", patience=seconds * 4)
    page.screenshot(path)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=f"Draw the status page (schema {SCHEMA}) under load.")
    parser.add_argument("--out", type=Path, default=Path("docs/status.png"))
    parser.add_argument("--seconds", type=float, default=90.0, help="of load before the picture")
    options = parser.parse_args()
    ends = threading.Event()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        gateway = _started(stack, Path(folder))
        threads = [threading.Thread(target=_ask, args=(gateway, ends, seed)) for seed in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            browser = stack.enter_context(Browser())
            _drawn(browser.page(), f"http://127.0.0.1:{gateway.admin}/", options.out, options.seconds)
        finally:
            ends.set()
            for thread in threads:
                thread.join()
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
