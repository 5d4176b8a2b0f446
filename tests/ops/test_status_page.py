"""The status page in a browser: headless Chromium before a gateway under load."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.browser import Browser, Page, chromium
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin

pytestmark = pytest.mark.skipif(chromium() is None, reason="Chromium is not installed")

LIMITS = """
[[limits]]
name = "narrow"
key = ["tenant", "ip"]
rate = "2/h"
paths = ["/a/limited"]
"""
# What the page looks like while it shows figures, and what it says then.
SERVES = "document.querySelector('#services-table table') !== null && points.length > 0"
# When the page has last been answered, in milliseconds.
LATEST = "heard[heard.length - 1].at"
WIDTH = "document.documentElement.scrollWidth"
FOCUSED = """(() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  return [at.getAttribute("aria-label") || at.textContent.trim(), style.outlineStyle, parseFloat(style.outlineWidth)];
})()"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with a service that serves, and one that is not there."""
    folder = tmp_path_factory.mktemp("status")
    with Origin() as origin, Origin(listening=False) as absent:
        config = configuration({"a": origin.url, "absent": absent.url}, {}, LIMITS)
        with (
            GatewayProcess(folder, config, ports=(GatewayProcess.PLAIN, GatewayProcess.TLS)) as gateway,
            load(gateway),
        ):
            yield gateway


@contextlib.contextmanager
def load(gateway: GatewayProcess) -> Iterator[None]:
    """A client that asks for what is served, what is limited, what fails and what is not there, again and again."""
    ends = threading.Event()

    def ask() -> None:
        with gateway.connect() as client:
            while not ends.wait(0.02):
                for path in ("/a", "/a", "/a/limited", "/nowhere", "/absent"):
                    client.ask("GET", path)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@contextlib.contextmanager
def opened(gateway: GatewayProcess, browser: Browser) -> Iterator[Page]:
    """The page, once it shows something."""
    page = browser.page()
    page.resize(1280)
    page.open(f"http://127.0.0.1:{gateway.admin}/")
    page.until(SERVES, "the page shows figures")
    yield page
    page.close()


@pytest.fixture(scope="module")
def one_page(gateway: GatewayProcess, browser: Browser) -> Iterator[Page]:
    with opened(gateway, browser) as page:
        yield page


@pytest.fixture
def page(one_page: Page) -> Page:
    """A page that several tests look at, at the size of a desktop."""
    one_page.resize(1280)
    one_page.until("innerWidth === 1280", "the width is taken")
    return one_page


@pytest.fixture
def own_page(gateway: GatewayProcess, browser: Browser) -> Iterator[Page]:
    """A page that the test alone has."""
    with opened(gateway, browser) as page:
        yield page


def text(page: Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector('{selector}').innerText")
    return found


def test_it_shows_what_happens_and_asks_for_nothing_else(gateway: GatewayProcess, page: Page) -> None:
    for key in ("narrow", "absent"):
        page.until(f"document.querySelector('#attention').innerText.includes('{key}')", f"{key} needs attention")
    assert text(page, "#state-heading") == "Ready"
    assert page.run("document.title").startswith("Ready (")
    page.until(
        "[...document.querySelectorAll('.plot svg')].every((svg) => svg.querySelector('path'))", "all are drawn"
    )
    rows = page.run("[...document.querySelectorAll('#services-table tbody tr')].map((row) => row.innerText)")
    assert [row.split()[0] for row in rows] == ["a", "absent"]
    assert "unreachable" in rows[1]
    assert "available" in rows[0]
    page.until("document.querySelector('#limits-table').innerText.includes('over')", "somebody is over the limit")
    assert "ip 127.0.0.1" in text(page, "#limits-table")
    assert "days" in text(page, "#certificates-table")
    assert str(gateway.pid) in text(page, "#workers-table")
    assert str(gateway.config) in text(page, "#configuration")
    page.until("parseFloat(document.querySelector('#figures .value').textContent) > 1", "requests are counted")
    assert set(page.requests) == {f"http://127.0.0.1:{gateway.admin}{path}" for path in ("/", "/status")}
    assert page.console == []


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_any_width_in_light_and_in_the_dark(page: Page, dark: bool) -> None:
    for width in (1280, 768, 360, 320):
        page.resize(width, dark=dark, phone=width < 500)
        page.until(f"innerWidth === {width}", "the width is taken")
        assert page.run(WIDTH) <= width
        wide = page.run(
            f"[...document.querySelectorAll('body *')].filter((each) => !each.closest('.hidden, thead, .skip')"
            f" && each.getBoundingClientRect().right > {width} + 0.5).map((each) => each.outerHTML.slice(0, 80))"
        )
        assert wide == []
    light = page.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (max(light) < 64) is dark
    assert page.console == []


def test_the_keyboard_reaches_all_that_a_mouse_does(page: Page) -> None:
    seen: list[str] = []
    for _ in range(40):
        page.press("Tab", 9)
        name, style, width = page.run(FOCUSED)
        assert style != "none", name
        assert width >= 2, name
        seen.append(name)
        if name.startswith("Refusals"):
            break
    first = ["Skip to the state of the gateway", "Pause", "Traffic", "Services", "Limits", "Tenants", "Certificates"]
    assert seen[:7] == first
    plots = [name for name in seen if name.endswith(": moment")]
    assert len(plots) == 4
    # An arrow key goes to the moment before, in all plots, and says what was then.
    page.press("ArrowLeft", 37)
    said = page.run("[...document.querySelectorAll('.plot')].map((each) => each.getAttribute('aria-valuetext'))")
    assert all(each.startswith("at ") for each in said), said
    assert page.run("document.querySelectorAll('.cursor').length") == 4
    page.press("Escape", 27)
    page.until("document.querySelectorAll('.cursor').length === 0", "it shows now again")
    page.run("document.querySelector('#pause').focus()")
    page.press(" ", 32)
    page.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'", "it pauses")
    asked = page.run(LATEST)
    page.press(" ", 32)
    page.until(f"{LATEST} > {asked}", "it goes on")


def test_the_focus_stays_where_it_is_while_figures_change(page: Page) -> None:
    page.until("document.querySelector('#attention a') !== null", "something needs attention")
    page.run("window.kept = document.querySelector('#attention a'); kept.focus()")
    asked = page.run(LATEST)
    page.until(f"{LATEST} > {asked} + 3000", "two more answers have been shown")
    assert page.run("document.activeElement === kept && kept.isConnected")


def tree(page: Page) -> list[tuple[str, str]]:
    """Role and name of everything that a screen reader sees."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]


@pytest.mark.parametrize("width", [1280, 360])
def test_a_screen_reader_has_landmarks_headings_and_tables(page: Page, width: int) -> None:
    page.resize(width, phone=width < 500)
    seen = tree(page)
    roles = [role for role, _ in seen]
    for role in ("banner", "main", "contentinfo", "navigation"):
        assert roles.count(role) == 1, role
    headings = ["Traffic", "Services", "Limits", "Tenants", "Certificates", "Workers", "Configuration in force"]
    assert [name for role, name in seen if role == "region"] == ["Ready", *headings]
    assert [name for role, name in seen if role == "heading"] == ["koder-gateway", "Ready", *headings]
    tables = [name for role, name in seen if role == "table"]
    assert len(tables) >= 4
    assert all(tables)
    assert {"columnheader", "rowheader", "cell", "status"} <= set(roles)
    assert [name for role, name in seen if role == "slider"] == [
        "Requests a second: moment",
        "Latency: moment",
        "Responses a second, by class of status: moment",
        "Refusals a second, by code: moment",
    ]
    summaries: list[str] = page.run("[...document.querySelectorAll('.summary')].map((each) => each.innerText)")
    assert all(each.endswith(".") for each in summaries), summaries


def test_values_are_text_whatever_they_say(own_page: Page) -> None:
    """Every text of an answer becomes markup, as if each name came from an attacker."""
    own_page.run("paused = true")
    own_page.run("""(() => {
      const evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</' + 'script>';
      const poisoned = (value, key) => {
        const plain = ["time", "started", "read", "expires"].includes(key);
        if (typeof value === "string") return plain ? value : evil + value;
        if (Array.isArray(value)) return value.map((each) => poisoned(each, key));
        if (value === null || typeof value !== "object") return value;
        return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, poisoned(each, name)]));
      };
      const status = poisoned(heard[heard.length - 1].status, "");
      status.refusals[evil] = 1e6;
      status.build[evil] = evil;
      status.services[0].failures[evil] = 1e6;
      status.limits.rules[0].over = [{ key: { [evil]: evil }, left: 0, of: 5, wait: 1 }];
      status.tenants = { ...status.tenants, registry: true, busiest: [{ tenant: evil, total: 5, classes: {} }] };
      status.reasons = [evil];
      status.workers.push({ number: 9, pid: 1, ready: false, reasons: [evil], restarts: 0, silent: 0 });
      status.reloads.last = { time: status.time, accepted: false, faults: [evil] };
      status.clock += 2;
      take(status, Date.now());
      show();
    })()""")
    assert own_page.run("document.querySelectorAll('main img, main script').length") == 0
    assert own_page.run("window.hit") is None
    for place in ("state", "services-table", "limits-table", "tenants-table", "certificates-table", "workers-table"):
        assert "<img src=x onerror" in text(own_page, f"#{place}"), place
    assert "<img src=x onerror" in text(own_page, "#configuration")
    assert "<img src=x onerror" in text(own_page, "#plots")
    assert own_page.console == []


def test_a_registry_that_is_refused_needs_attention_for_as_long_as_it_is(own_page: Page) -> None:
    own_page.run("paused = true")
    for current in ("false", "true"):
        own_page.run(f"""(() => {{
          const status = structuredClone(heard[heard.length - 1].status);
          status.tenants.current = {current};
          status.clock += 600;
          take(status, Date.now());
          show();
        }})()""")
        said = "The registry of tenants cannot be read or is refused" in text(own_page, "#attention")
        assert said is (current == "false")


def test_a_plot_without_anything_speaks_of_its_own_time_alone(own_page: Page) -> None:
    """There were requests and refusals before this page was opened."""
    said = own_page.run("""(() => {
      paused = true;
      const status = heard[heard.length - 1].status;
      heard.length = points.length = 0;
      for (const clock of [2, 4]) take({ ...structuredClone(status), clock: status.clock + clock }, Date.now());
      show();
      return [...document.querySelectorAll(".summary")].map((each) => each.innerText);
    })()""")
    assert [each for each in said if "in this time." in each] == [said[1], said[3]]


def test_it_says_when_the_gateway_is_gone_and_comes_back_by_itself(own_page: Page) -> None:
    def offline(away: bool) -> None:
        bounds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        own_page.call("Network.emulateNetworkConditions", offline=away, **bounds)

    heading = "document.querySelector('#state-heading').innerText"
    offline(True)
    own_page.until(f"{heading}.startsWith('No answer since ')", "it says so")
    assert "does not answer" in own_page.run("document.querySelector('#announcement').textContent")
    assert text(own_page, "#services-table") != "", "what was heard last is still there"
    offline(False)
    own_page.until(f"{heading} === 'Ready'", "it is back")
    own_page.until("points.some((each) => each.gap) && !points[points.length - 1].gap", "plots have a gap")
    assert own_page.run("document.body.classList.contains('silent')") is False


def test_it_is_the_gateway_s_own_state_that_it_shows(gateway: GatewayProcess, page: Page) -> None:
    status: Any = page.run("heard[heard.length - 1].status")
    assert status["workers"][0]["pid"] == gateway.pid
    assert Path(status["configuration"]["file"]) == gateway.config
    assert status["requests"]["total"] > 0
    assert status["refusals"]["rate_limited"] > 0
