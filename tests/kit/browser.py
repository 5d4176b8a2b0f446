"""Headless Chromium, driven by its DevTools protocol: what a page does, asks for and looks like.

One process for all pages of a test module. Every page has a profile of its own, and records what its console says and
what it requests.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from websockets.sync.client import connect

from tests.kit.waiting import until

# Seconds: a browser that starts on a busy machine takes long.
_PATIENCE: Final = 60.0
_LISTENING: Final = re.compile(r"DevTools listening on (ws://\S+)")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """The browser's program; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A tab. `console` are warnings, errors and exceptions that it has reported, `requests` the URLs that it has
    asked for, `data:` ones left out."""

    def __init__(self, browser: Browser, session: str, target: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self._context = context
        self.console: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: object) -> Any:
        """The result of one command of the protocol."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Go there, and wait until the page has been loaded."""
        result = self.call("Page.navigate", url=url)
        assert not result.get("errorText"), result
        self.until("document.readyState === 'complete'", "the page is loaded")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, what: str, patience: float = _PATIENCE) -> Any:
        """The value of an expression in the page, once it is true."""
        try:
            return until(lambda: self.run(script), what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the page says: {self.run('document.body.innerText')}") from None

    def resize(
        self, width: int, height: int = 800, *, dark: bool = False, phone: bool = False, scale: int = 1
    ) -> None:
        """Set the size of the screen in CSS pixels, and the scheme of colours that its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int) -> None:
        """Press and release a key, as in ("Tab", 9)."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        result = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))

    def close(self) -> None:
        """Close it, and forget its profile."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def heard(self, method: str, parameters: Mapping[str, Any]) -> None:
        """Take note of an event."""
        if method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith("data:"):
                self.requests.append(url)
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(each.get("value", each)) for each in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            entry = parameters["entry"]
            self.console.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")


class Browser:
    """The process. A context manager."""

    def __init__(self, *flags: str) -> None:
        """`flags` are further options of its command line."""
        program = chromium()
        assert program is not None, "chromium is not installed"
        self._folder = tempfile.mkdtemp(prefix="koder-browser-")
        self._log = Path(self._folder) / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *_FLAGS, *flags, f"--user-data-dir={self._folder}/profile", "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its many processes end together.
                start_new_session=True,
                env={**os.environ, "HOME": self._folder},
            )
        self._pages: dict[str, Page] = {}
        self._number = 0
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._kill)
        try:
            connecting = connect(self._address(), max_size=1 << 26, proxy=None, open_timeout=_PATIENCE)
            self._socket = self._stack.enter_context(connecting)
        except BaseException:
            self._stack.close()
            raise

    def _address(self) -> str:
        def found() -> re.Match[str] | None:
            log = self._log.read_text(errors="replace")
            assert self._process.poll() is None, log
            return _LISTENING.search(log)

        address: str = until(found, "the browser listens", _PATIENCE)[1]
        return address

    def call(self, method: str, session: str = "", **parameters: object) -> Any:
        """The result of one command of the protocol; events that arrive meanwhile go to their pages."""
        self._number += 1
        number = self._number
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.heard(answer["method"], answer["params"])

    def page(self) -> Page:
        """A new tab, with a profile of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target, context)
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            page.call(f"{domain}.enable")
        return page

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stack.close()
