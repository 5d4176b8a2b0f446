"""The registry behind a URL: real answers over loopback, time by hand; then a gateway that follows one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from koder_gateway import Gateway, load
from koder_gateway.errors import OVERLOADED
from koder_gateway.ops.counters import Counters
from koder_gateway.policy.tenants import Registry, Tenant
from koder_gateway.tenants import list_reader
from koder_gateway.tenants.list_reader import WHOLE
from koder_gateway.tenants.registry_in_force import RegistryInForce
from koder_gateway.tenants.remote_registry import TIMEOUT, RegistryLocation, RemoteRegistry, UnreadTenants
from koder_gateway.upstream.fetch import Fetcher
from tests.kit.clients import HOST, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin, answer
from tests.kit.tenants import in_order
from tests.kit.waiting import eventually, until

BASE = "id.koder.dev"
REFRESH = 30.0
LIMIT = 1 << 20
A, B = [{"slug": "a"}], [{"slug": "a"}, {"slug": "b", "status": "suspended"}]
CACHE = "tenants-cache.json"


class Admin(Resource):
    """The Admin service: a test says what it answers. With an ETag it answers 304 where that is asked for."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.body = b"[]"
        self.status = 200
        self.etag = b""
        self.silent = False
        self.seen: list[Any] = []
        self._port: Any = None

    async def start(self, number: int = 0) -> int:
        """Listen; the port's number."""
        endpoint = TCP4ServerEndpoint(reactor, number, interface="127.0.0.1")
        self._port = await endpoint.listen(Site(self, timeout=None))
        return int(self._port.getHost().port)

    async def stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()

    def lists(self, document: object, etag: bytes = b"") -> None:
        """Answer this from now on."""
        self.body, self.status, self.etag = json.dumps(document).encode(), 200, etag

    def gone(self) -> list[object]:
        """A list that is empty until whoever has asked last has gone."""
        gone: list[object] = []
        self.seen[-1].notifyFinish().addErrback(gone.append)
        return gone

    def render_GET(self, request: Any) -> Any:
        self.seen.append(request)
        if self.silent:
            return NOT_DONE_YET
        if self.etag and request.setETag(self.etag):
            return b""
        request.setResponseCode(self.status)
        return self.body


class Source(Fetcher):
    """Where the registry is; a test may want to do something as soon as an answer is there."""

    answered = staticmethod(lambda: None)

    def get(self, headers: Any, url: str = "") -> Any:
        return super().get(headers, url).addCallback(self._tell)

    def _tell(self, answer: Any) -> Any:
        self.answered()
        return answer


class Followed:
    """A registry that is followed, and the lists that came of it."""

    def __init__(self, number: int, state: Path, path: str = "/v1/admin/tenants?key=7") -> None:
        self.now = 0.0
        self.read: list[tuple[Tenant, ...]] = []
        self.counters = Counters()
        self.place = RegistryLocation(f"http://127.0.0.1:{number}{path}", BASE, state)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        self.source = Source(reactor, endpoint, self.place.url, LIMIT)
        self.before = Registry(())
        in_force = RegistryInForce(lambda: self.before, lambda: 0.1)
        self.registry = RemoteRegistry(self.place, self.source, in_force, self.counters, self.take, reactor)

    def take(self, registry: Registry) -> None:
        self.before = registry
        self.read.append(in_order(registry))

    async def refresh(self) -> None:
        """Let the next refresh be due, and end."""
        self.sweep()
        await eventually(lambda: not self.registry._busy, "the refresh has ended")
        self.now += REFRESH

    def sweep(self) -> None:
        self.registry.sweep(self.now, REFRESH)

    @property
    def slugs(self) -> list[list[str]]:
        return [[tenant.slug for tenant in tenants] for tenants in self.read]


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line that the registry logs, with its level."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("koder_gateway.tenants.re"):
            lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def admin() -> Iterator[Admin]:
    """An Admin service, gone after the test."""
    admin = Admin()
    yield admin
    pytest_twisted.blockon(Deferred.fromCoroutine(admin.stop()))


@pytest_twisted.ensureDeferred
async def test_the_list_is_asked_for_at_once_and_then_every_so_often(admin: Admin, tmp_path: Path) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.lists({"tenants": B})
    await followed.refresh()
    assert followed.read == [(Tenant("a"), Tenant("b", (), "suspended"))]
    (request,) = admin.seen
    assert request.uri == b"/v1/admin/tenants?key=7"
    assert request.getHeader(b"accept") == b"application/json"
    assert request.getHeader(b"if-none-match") is None
    followed.now = REFRESH - 0.25
    followed.sweep()
    assert not followed.registry._busy
    followed.now = REFRESH
    admin.lists(A)
    await followed.refresh()
    assert followed.slugs == [["a", "b"], ["a"]]
    assert followed.counters.registry_failures == 0
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_it_is_asked_for_before_its_time_when_told(admin: Admin, tmp_path: Path) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A)
    await followed.refresh()
    followed.now = 1.0
    followed.registry.again()
    admin.lists(B)
    await followed.refresh()
    assert followed.slugs == [["a"], ["a", "b"]]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_what_has_not_changed_is_not_read_again(admin: Admin, tmp_path: Path) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A)
    for _ in range(3):
        await followed.refresh()
    assert followed.slugs == [["a"]]
    assert len(admin.seen) == 3
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_an_etag_spares_the_list(admin: Admin, tmp_path: Path) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A, b'"one"')
    await followed.refresh()
    await followed.refresh()
    assert [request.code for request in admin.seen] == [200, 304]
    assert admin.seen[-1].getHeader(b"if-none-match") == b'"one"'
    admin.lists(B, b'"two"')
    await followed.refresh()
    await followed.refresh()
    assert [request.code for request in admin.seen] == [200, 304, 200, 304]
    assert followed.slugs == [["a"], ["a", "b"]]
    assert followed.counters.registry_failures == 0
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_the_etag_of_a_bad_list_is_not_sent(admin: Admin, tmp_path: Path) -> None:
    """An answer "not modified" would make the bad list look like a good one."""
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A, b'"one"')
    await followed.refresh()
    admin.lists([{"slug": "-"}], b'"bad"')
    for _ in range(2):
        await followed.refresh()
    assert [request.code for request in admin.seen] == [200, 200, 200]
    assert [request.getHeader(b"if-none-match") for request in admin.seen] == [None, b'"one"', b'"one"']
    assert (followed.counters.registry_failures, followed.counters.registry_unread) == (2, True)
    admin.lists(A, b'"one"')
    await followed.refresh()
    assert admin.seen[-1].code == 304
    assert followed.slugs == [["a"]]
    assert (followed.counters.registry_failures, followed.counters.registry_unread) == (2, False)
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_an_unasked_304_is_no_list(admin: Admin, tmp_path: Path) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.status = 304
    await followed.refresh()
    assert followed.read == []
    assert followed.counters.registry_failures == 1
    followed.registry.stop()


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (500, b"[]", "responds with 500, not 200"),
        (204, b"", "responds with 204, not 200"),
        (302, b"", "responds with 302, not 200"),
        (401, b'{"tenants": []}', "responds with 401, not 200"),
        (200, b"<html>", "is not a list of tenants: "),
        (200, b'{"tenants": null}', "is not a list of tenants: "),
        (200, b'[{"slug": "-"}]', 'tenants[0].slug: "-" is not a slug'),
        (200, b" " * (LIMIT + 1), "is longer than "),
    ],
    ids=range(8),
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_good_list_changes_nothing(
    admin: Admin, tmp_path: Path, log: list[str], status: int, body: bytes, fault: str
) -> None:
    number = await admin.start()
    followed = Followed(number, tmp_path)
    admin.lists(A)
    await followed.refresh()
    kept = (tmp_path / CACHE).read_bytes()
    admin.status, admin.body = status, body
    for _ in range(3):
        await followed.refresh()
    assert followed.slugs == [["a"]]
    assert (tmp_path / CACHE).read_bytes() == kept
    assert followed.counters.registry_failures == 3
    name = f"http://127.0.0.1:{number}/v1/admin/tenants"
    (line,) = log
    assert line.startswith(f"error: registry not read, the previous tenants stay: {name}: {fault}")
    admin.lists(A)
    await followed.refresh()
    assert log[1:] == [f"info: {name} can be read again"]
    admin.status, admin.body = status, body
    await followed.refresh()
    assert log[2:] == [line]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_registry_that_vanishes_is_told_once_and_comes_back(
    admin: Admin, tmp_path: Path, log: list[str]
) -> None:
    number = await admin.start()
    followed = Followed(number, tmp_path)
    admin.lists(A)
    await followed.refresh()
    await admin.stop()
    for _ in range(3):
        await followed.refresh()
    (line,) = log
    assert line.endswith("/v1/admin/tenants: Connection was refused by other side: 111: Connection refused.")
    assert followed.counters.registry_failures == 3
    admin.lists(B)
    await admin.start(number)
    await followed.refresh()
    assert followed.slugs == [["a"], ["a", "b"]]
    assert len(log) == 2
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_late_is_cut_off(admin: Admin, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.silent = True
    followed.sweep()
    await eventually(lambda: admin.seen, "the registry is asked")
    gone = admin.gone()
    followed.now = TIMEOUT - 0.25
    followed.sweep()
    assert followed.registry._busy
    followed.now = TIMEOUT
    followed.sweep()
    assert not followed.registry._busy
    await eventually(lambda: gone, "the connection is gone")
    (line,) = log
    assert line.endswith("no complete response within 10 seconds")
    admin.silent = False
    admin.lists(A)
    followed.now = REFRESH
    await followed.refresh()
    assert followed.slugs == [["a"]]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_of_many_faults_the_first_are_told(admin: Admin, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.lists([{"slug": f"-{number}"} for number in range(25)])
    await followed.refresh()
    assert len(log) == 11
    assert "tenants[9].slug" in log[9]
    assert log[10].startswith("error: registry not read, the previous tenants stay: ")
    assert log[10].endswith(": and 15 more")
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_that_lacks_too_many_is_refused_until_somebody_asks_for_it(
    admin: Admin, tmp_path: Path, log: list[str]
) -> None:
    followed = Followed(await admin.start(), tmp_path)
    whole = [{"slug": f"t{number}"} for number in range(100)]
    admin.lists(whole)
    await followed.refresh()
    admin.lists(whole[11:], b'"cut"')
    for _ in range(2):
        await followed.refresh()
    (line,) = log
    assert "lacks 11 of 100 tenants, more than tenants.max_loss" in line
    assert (len(followed.read), followed.counters.registry_failures) == (1, 2)
    assert len(json.loads((tmp_path / CACHE).read_bytes())["tenants"]) == 100, "nor is it kept for the next start"
    admin.lists(whole[10:])
    await followed.refresh()
    assert len(followed.read[-1]) == 90
    admin.lists(whole[50:], b'"half"')
    await followed.refresh()
    assert len(followed.read[-1]) == 90
    followed.registry.again()
    await followed.refresh()
    assert len(followed.read[-1]) == 50
    admin.lists([])
    await followed.refresh()
    assert len(followed.read[-1]) == 50, "it was asked for once"
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_bad_entries_are_left_out_and_told_once(admin: Admin, tmp_path: Path, log: list[str]) -> None:
    number = await admin.start()
    followed = Followed(number, tmp_path)
    whole: list[dict[str, Any]] = [{"slug": f"t{number}"} for number in range(100)]
    dotted = [*whole, {"slug": "a.b"}, {"slug": "Upper"}, {"slug": "c", "limits": {"login": {"rate": "x"}}}]
    admin.lists(dotted, b'"one"')
    for _ in range(3):
        await followed.refresh()
    assert len(followed.read[-1]) == 101
    name = f"error: left out of the registry: http://127.0.0.1:{number}/v1/admin/tenants: "
    assert [line.removeprefix(name).partition(": ")[0] for line in log] == [
        "tenants[100].slug",
        "tenants[101].slug",
        "tenants[102].limits.login.rate",
    ]
    assert (followed.counters.registry_skipped, followed.counters.registry_failures) == (2, 0)
    assert [request.code for request in admin.seen] == [200, 304, 304], "the list is a good one"
    admin.lists([*dotted, {"slug": "new"}])
    await followed.refresh()
    assert (len(followed.read[-1]), len(log)) == (102, 3), "what was told is not told again"
    admin.lists([*whole, *({"slug": f"T{number}"} for number in range(12))])
    await followed.refresh()
    assert log[-1].endswith(': has faults in 12 of 112 entries, more than tenants.max_loss = "10%" allows')
    assert (len(followed.read[-1]), followed.counters.registry_failures) == (102, 1)
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_the_list_after_a_restart_is_compared_with_the_kept_one(
    admin: Admin, tmp_path: Path, log: list[str]
) -> None:
    number = await admin.start()
    before = Followed(number, tmp_path)
    whole: list[dict[str, Any]] = [{"slug": f"t{number}", "domains": [f"t{number}.example"]} for number in range(100)]
    admin.lists(whole)
    await before.refresh()
    before.registry.stop()
    admin.lists(whole[11:])
    followed = Followed(number, tmp_path)
    await followed.refresh()
    assert [len(tenants) for tenants in followed.read] == [100]
    assert "lacks 11 of 100 tenants, more than tenants.max_loss" in log[-1]
    admin.lists([*whole, {"slug": "thief", "domains": ["t7.example"]}])
    await followed.refresh()
    assert followed.before.at(b"t7.example") == Tenant("t7", ("t7.example",))
    assert "it stays with" in log[-2]
    followed.registry.again()
    admin.lists(whole[:5])
    await followed.refresh()
    assert len(followed.read[-1]) == 5, "an operator may ask for it"
    followed.registry.stop()


# Pages, and changes.


class Paged(Admin):
    """An Admin service whose responses a test gives by target, each a document with its ETag and Link header."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, tuple[Any, str, str]] = {}

    def gives(self, target: str, document: Any, etag: str = "", link: str = "") -> None:
        self.pages["/v1/admin/tenants" + target] = document, etag, link

    @property
    def targets(self) -> list[str]:
        return [request.uri.decode().removeprefix("/v1/admin/tenants") for request in self.seen]

    def render_GET(self, request: Any) -> Any:
        self.seen.append(request)
        if self.silent:
            return NOT_DONE_YET
        if self.status != 200:
            request.setResponseCode(self.status)
            return b""
        document, etag, link = self.pages[request.uri.decode()]
        if link:
            request.setHeader("Link", link)
        if etag and request.setETag(etag.encode()):
            return b""
        return document if isinstance(document, bytes) else json.dumps(document).encode()


@pytest.fixture
def paged() -> Iterator[Paged]:
    admin = Paged()
    yield admin
    pytest_twisted.blockon(Deferred.fromCoroutine(admin.stop()))


def some(*slugs: str, **members: Any) -> dict[str, Any]:
    return {"tenants": [{"slug": slug} for slug in slugs], **members}


@pytest_twisted.ensureDeferred
async def test_pages_are_followed(paged: Paged, tmp_path: Path) -> None:
    number = await paged.start()
    followed = Followed(number, tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", next="/v1/admin/tenants?page=2"))
    paged.gives("?page=2", some("b", next=f"http://127.0.0.1:{number}/v1/admin/tenants?page=3"))
    paged.gives("?page=3", some("c", next=None, next_cursor="x&=/y"))
    paged.gives("?page=3&cursor=x%26%3D%2Fy", some("d"), "", '<?page=5>; title="a, b"; rel="last next"')
    paged.gives("?page=5", some("e"), "", '<?page=1>; rel="prev", <nexts>; rel=nexts')
    await followed.refresh()
    assert paged.targets == ["", "?page=2", "?page=3", "?page=3&cursor=x%26%3D%2Fy", "?page=5"]
    assert followed.slugs == [["a", "b", "c", "d", "e"]]
    await followed.refresh()
    assert len(paged.seen) == 10
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_page_that_has_not_changed_is_not_transferred(paged: Paged, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", "b", next="?page=2"), "one")
    paged.gives("?page=2", some("c", next="?page=3"), "two")
    paged.gives("?page=3", some("d", next=None))
    await followed.refresh()
    paged.gives("?page=3", some("e"), "three")
    await followed.refresh()
    assert [request.code for request in paged.seen] == [200, 200, 200, 304, 304, 200]
    assert followed.slugs == [["a", "b", "c", "d"], ["a", "b", "c", "e"]]
    await followed.refresh()
    assert [request.code for request in paged.seen[6:]] == [304, 304, 304]
    assert len(followed.read) == 2, "nothing has changed"
    # A tenant that has moved to another page, and a fault: that page is read again each time.
    paged.gives("?page=2", some("b", next="?page=3"), "four")
    paged.gives("", some("a", next="?page=2"), "five")
    paged.gives("?page=3", some("e", "-"), "six")
    for _ in range(2):
        await followed.refresh()
    assert [request.code for request in paged.seen[9:]] == [200, 200, 200, 304, 304, 200]
    assert followed.slugs[2] == ["a", "b", "e"]
    assert followed.counters.registry_failures == 0
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_page_that_has_not_changed_of_tenants_that_nobody_knows(
    paged: Paged, tmp_path: Path, log: list[str]
) -> None:
    """Or an ETag that lies: the next time all pages are transferred."""
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", "b", next="?page=2"), "one")
    paged.gives("?page=2", some("c"), "two")
    await followed.refresh()
    followed.before = Registry([Tenant("a"), Tenant("c")])
    paged.gives("?page=2", some("d"), "three")
    await followed.refresh()
    assert "has a page that has not changed, of tenants that are no longer known" in log[-1]
    assert len(followed.read) == 1
    await followed.refresh()
    assert [request.code for request in paged.seen[2:]] == [304, 200, 200, 200]
    assert followed.slugs[-1] == ["a", "b", "d"]
    followed.registry.stop()


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (some("a", next="http://evil.example/v1/admin/tenants"), "its next page is on another server, "),
        (some("a", next="http://user@127.0.0.1:PORT/"), "its next page is on another server, "),
        (some("a", next="https://127.0.0.1:PORT/"), "its next page is on another server, "),
        (some("a", next="http://127.0.0.1:99999/"), "its next page is on another server, "),
        (some("a", next="file:///etc/passwd"), "its next page is on another server, "),
        (some("a", next="?" + "x" * 3000), "next is longer than 2048 characters"),
        (some("a", next="?a b\u00e9"), "the URL of its next page is too long, or is none"),
        (some("a", next=5), "next is not a string"),
        (some("a", next_cursor=["x"]), "next_cursor is not a string"),
        (some("a", as_of="x" * 300), "as_of is longer than 256 characters"),
        (b'{"next": "?a", "tenants": [], "next": "?b"}', "next is given twice"),
        (some("a", next=""), None),
    ],
    ids=range(12),
)
@pytest_twisted.ensureDeferred
async def test_where_a_list_must_not_go_on(
    paged: Paged, tmp_path: Path, log: list[str], document: Any, fault: str | None
) -> None:
    number = await paged.start()
    followed = Followed(number, tmp_path, "/v1/admin/tenants")
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    paged.gives("", data.replace(b"PORT", b"%d" % number))
    await followed.refresh()
    assert len(paged.seen) == 1
    if fault is None:
        assert followed.slugs == [["a"]]
    else:
        (line,) = log
        assert line.partition("is not a list of tenants: ")[2].startswith(fault)
        assert (followed.read, followed.counters.registry_failures) == ([], 1)
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_that_goes_round_in_a_circle(paged: Paged, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", next="?page=2"))
    paged.gives("?page=2", some("b", next="?page=2"))
    await followed.refresh()
    assert [line.rpartition(": ")[2] for line in log] == ["its pages go round in a circle"]
    assert followed.read == []
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_of_endless_pages(
    paged: Paged, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_reader, "_MAX_PAGES", 30)
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    for page in range(40):
        paged.gives(f"?page={page}" if page else "", some(next=f"?page={page + 1}"))
    await followed.refresh()
    assert [line.rpartition(": ")[2] for line in log] == ["has more than 30 pages"]
    assert len(paged.seen) == 30
    # One that takes for ever, too, although each of its pages is in time.
    paged.seen.clear()

    def pass_time() -> None:
        followed.now += 100
        followed.registry._now = followed.now

    followed.source.answered = pass_time
    await followed.refresh()
    assert log[-1].endswith("its pages do not end within 600 seconds")
    assert len(paged.seen) == 6
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_pages_are_bounded_together(
    paged: Paged, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_reader, "MAX_LIST", 1 << 20)
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    for page in range(5):
        document = json.dumps(some(f"t{page}", other="x" * 200_000, more="x" * 200_000, next=f"?page={page + 1}"))
        paged.gives(f"?page={page}" if page else "", document.encode())
    await followed.refresh()
    assert [line.rpartition(": ")[2] for line in log] == ["all pages together are longer than 1 MiB"]
    assert (followed.read, len(paged.seen)) == ([], 3)
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_changes_are_asked_for_where_they_are_offered(paged: Paged, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some(*(f"t{number}" for number in range(50)), as_of="2026-11-29T22:00:00+01:00"))
    await followed.refresh()
    since = "2026-11-29T22%3A00%3A00%2B01%3A00"
    changes = {"updated_since": "2026-11-29T22:00:00+01:00", "as_of": "7"}
    changed = [{"slug": "t1", "status": "suspended"}, {"slug": "new"}]
    paged.gives(f"?updated_since={since}", {"tenants": changed, "removed": ["t2", "nobody", "Not a slug"], **changes})
    paged.gives("?updated_since=7", some(updated_since="7", as_of="8"))
    paged.gives("?updated_since=8", some("last", updated_since="8", next="?updated_since=8&page=2", as_of="9"))
    paged.gives("?updated_since=8&page=2", some(updated_since="8", removed=["t3"]))
    for _ in range(3):
        await followed.refresh()
    assert paged.targets[1:] == [
        f"?updated_since={since}", "?updated_since=7", "?updated_since=8", "?updated_since=8&page=2"
    ]  # fmt: skip
    assert [len(tenants) for tenants in followed.read] == [50, 50, 50], "no changes are no list"
    second, last = followed.read[1], followed.read[2]
    assert Tenant("t1", (), "suspended") in second
    assert {tenant.slug for tenant in second} == {"new", *(f"t{number}" for number in range(50))} - {"t2"}
    assert {tenant.slug for tenant in last} == ({tenant.slug for tenant in second} | {"last"}) - {"t3"}
    assert log == []
    followed.registry.again()
    await followed.refresh()
    assert paged.targets[-1] == "", "a reload reads all of it"
    followed.registry.stop()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (some("a", updated_since="8", as_of="9"), 'it has changes since "8", not since "7"'),
        (some("a", updated_since=7, as_of="9"), "updated_since is not a string"),
        (some("a", updated_since="7", removed="b"), "removed is not a list of slugs"),
        (b"<html>", "it begins with neither [ nor {"),
        (some(updated_since="7", removed=[f"t{number}" for number in range(11)]), "lacks 11 of 100 tenants"),
    ],
    ids=range(5),
)
@pytest_twisted.ensureDeferred
async def test_changes_that_make_no_sense_are_not_made(
    paged: Paged, tmp_path: Path, log: list[str], answer: Any, fault: str
) -> None:
    """And the whole list is asked for next."""
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    whole = [f"t{number}" for number in range(100)]
    paged.gives("", some(*whole, as_of="7"))
    paged.gives("?updated_since=7", answer)
    for _ in range(2):
        await followed.refresh()
    assert (len(followed.read), followed.counters.registry_failures) == (1, 1)
    assert fault in log[-1]
    paged.gives("", some(*whole, "more", as_of="8"))
    await followed.refresh()
    assert paged.targets == ["", "?updated_since=7", ""]
    assert len(followed.read[-1]) == 101
    followed.registry.stop()


SUSPENDED = {"tenants": [{"slug": "s", "status": "suspended"}, {"slug": "t"}], "as_of": "A"}


@pytest.mark.parametrize("etag", ["", "a"])
@pytest_twisted.ensureDeferred
async def test_a_whole_list_that_comes_back_after_changes_is_read(paged: Paged, tmp_path: Path, etag: str) -> None:
    """The same bytes, or the same ETag, but the tenants are others by now: the suspension must come back."""
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", SUSPENDED, etag)
    paged.gives("?updated_since=A", some("s", updated_since="A", as_of="B"))
    paged.gives("?updated_since=B", some(updated_since="?"))
    for _ in range(4):
        await followed.refresh()
    assert paged.targets == ["", "?updated_since=A", "?updated_since=B", ""]
    assert [tenants[0].status for tenants in followed.read] == ["suspended", "active", "suspended"]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_reload_compares_nothing_with_the_list_before(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a"), "one")
    await followed.refresh()
    followed.registry.again()
    await followed.refresh()
    assert [request.code for request in paged.seen] == [200, 200]
    assert followed.slugs == [["a"], ["a"]]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_reload_while_a_list_is_in_flight_asks_for_the_whole_list(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", as_of="7"))
    followed.source.answered = followed.registry.again
    await followed.refresh()
    followed.source.answered = lambda: None
    followed.now = 1.0
    await followed.refresh()
    assert paged.targets == ["", ""]
    followed.registry.stop()


@pytest.mark.parametrize(("status", "then"), [(500, "?updated_since=7"), (429, "?updated_since=7"), (410, "")])
@pytest_twisted.ensureDeferred
async def test_changes_that_fail_are_asked_for_again(paged: Paged, tmp_path: Path, status: int, then: str) -> None:
    """Only an answer that is about the mark ends it."""
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", as_of="7"))
    paged.gives("?updated_since=7", some("b", updated_since="7", as_of="8"))
    await followed.refresh()
    paged.status = status
    await followed.refresh()
    paged.status = 200
    await followed.refresh()
    assert paged.targets == ["", "?updated_since=7", then]
    assert followed.counters.registry_failures == 1
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_changes_that_time_out_are_asked_for_again(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", as_of="7"))
    await followed.refresh()
    paged.silent = True
    followed.sweep()
    await eventually(lambda: len(paged.seen) == 2, "the changes are asked for")
    gone = paged.gone()
    followed.now += TIMEOUT
    followed.sweep()
    await eventually(lambda: gone, "the connection is gone")
    assert followed.counters.registry_failures == 1
    paged.silent = False
    paged.gives("?updated_since=7", some("b", updated_since="7", as_of="8"))
    followed.now += REFRESH
    await followed.refresh()
    assert paged.targets == ["", "?updated_since=7", "?updated_since=7"]
    assert followed.slugs == [["a"], ["a", "b"]]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_failure_keeps_the_etags_of_pages(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", next="?page=2"), "one")
    paged.gives("?page=2", some("b"), "two")
    await followed.refresh()
    paged.status = 500
    await followed.refresh()
    paged.status = 200
    await followed.refresh()
    assert [request.code for request in paged.seen] == [200, 200, 500, 304, 304]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_entries_that_are_left_out_stay_counted_after_changes(
    paged: Paged, tmp_path: Path, log: list[str]
) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    whole = some(*(f"t{number}" for number in range(30)), "Bad", "b.d", as_of="7")
    paged.gives("", whole)
    paged.gives("?updated_since=7", some("t1", updated_since="7", as_of="8"))
    for _ in range(2):
        await followed.refresh()
    assert (len(followed.read), followed.counters.registry_skipped, len(log)) == (2, 2, 2)
    followed.registry.again()
    await followed.refresh()
    assert (len(followed.read), followed.counters.registry_skipped, len(log)) == (3, 2, 2), "and told once"
    followed.registry.again()
    paged.gives("", some("t1"))
    await followed.refresh()
    assert followed.counters.registry_skipped == 0
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_page_whose_tenant_another_page_contradicts_is_read_again(
    paged: Paged, tmp_path: Path, log: list[str]
) -> None:
    """A 304 would keep the tenant as it was before, and not as its page says."""
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("s", "k", next="?page=2"), "1-1")
    paged.gives("?page=2", some("z"), "2-1")
    await followed.refresh()
    suspended = {"tenants": [{"slug": "s", "status": "suspended"}, {"slug": "k"}], "next": "?page=2"}
    paged.gives("", suspended, "1-2")
    paged.gives("?page=2", some("z", "s"), "2-2")
    await followed.refresh()
    assert Tenant("s") in followed.read[-1], "contradicted: as it was"
    paged.gives("?page=2", some("z"), "2-1")
    await followed.refresh()
    assert Tenant("s", (), "suspended") in followed.read[-1]
    assert [request.code for request in paged.seen] == [200] * 6
    await followed.refresh()
    assert [request.code for request in paged.seen[6:]] == [304, 304]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_page_whose_tenant_a_bad_entry_of_another_page_has_is_read_again(
    paged: Paged, tmp_path: Path, log: list[str]
) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("s", *(f"t{number}" for number in range(20)), next="?page=2"), "1-1")
    paged.gives("?page=2", some("z"), "2-1")
    await followed.refresh()
    changed = some("s", *(f"t{number}" for number in range(20)), next="?page=2")
    changed["tenants"][0]["status"] = "suspended"
    paged.gives("", changed, "1-2")
    paged.gives("?page=2", {"tenants": [{"slug": "z"}, {"slug": "s", "status": "?"}]}, "2-2")
    await followed.refresh()
    paged.gives("?page=2", some("z"), "2-1")
    await followed.refresh()
    assert Tenant("s", (), "suspended") in followed.read[-1]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_domain_goes_to_the_page_that_alone_claims_it_in_the_end(
    paged: Paged, tmp_path: Path, log: list[str]
) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    a, b = {"slug": "a", "domains": ["x.example"]}, {"slug": "b", "domains": ["x.example"]}
    paged.gives("", {"tenants": [a], "next": "?page=2"}, "1-1")
    paged.gives("?page=2", {"tenants": [b]}, "2-1")
    await followed.refresh()
    assert followed.before.at(b"x.example") is None
    paged.gives("", some("a", next="?page=2"), "1-2")
    await followed.refresh()
    assert followed.before.at(b"x.example") == Tenant("b", ("x.example",))
    assert [request.code for request in paged.seen] == [200] * 4
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_service_that_gives_the_whole_list_all_the_same(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", "b", as_of="7"))
    paged.gives("?updated_since=7", some("b", "c"))
    for _ in range(3):
        await followed.refresh()
    assert followed.slugs == [["a", "b"], ["b", "c"], ["a", "b"]]
    assert paged.targets == ["", "?updated_since=7", ""]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_the_whole_list_is_asked_for_every_hour(paged: Paged, tmp_path: Path) -> None:
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    paged.gives("", some("a", as_of="7"))
    paged.gives("?updated_since=7", some(updated_since="7", as_of="7"))
    for _ in range(1 + int(WHOLE / REFRESH)):
        await followed.refresh()
    assert paged.targets.count("") == 2
    assert paged.targets[-1] == ""
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_the_same_whole_list_after_an_hour_is_followed_by_changes(paged: Paged, tmp_path: Path) -> None:
    """Whether it says so by its ETag or by its bytes."""
    for etag in ("", "one"):
        paged.seen.clear()
        followed = Followed(paged._port.getHost().port if paged._port else await paged.start(), tmp_path / f"{etag}s")
        paged.pages["/v1/admin/tenants?key=7"] = some("a", as_of="7"), etag, ""
        paged.pages["/v1/admin/tenants?key=7&updated_since=7"] = some(updated_since="7", as_of="7"), "", ""
        await followed.refresh()
        followed.now = WHOLE
        for _ in range(2):
            await followed.refresh()
        assert paged.targets == ["?key=7", "?key=7", "?key=7&updated_since=7"]
        followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_pages_without_a_new_tenant_end_the_list(
    paged: Paged, tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they repeat the same tenants; and the next attempt waits."""
    monkeypatch.setattr(list_reader, "_MAX_IDLE", 5)
    followed = Followed(await paged.start(), tmp_path, "/v1/admin/tenants")
    for page in range(12):
        paged.gives(f"?page={page}" if page else "", some("a", next=f"?page={page + 1}"))

    def pass_time() -> None:
        followed.now += REFRESH
        followed.registry._now = followed.now

    followed.source.answered = pass_time
    followed.sweep()
    await eventually(lambda: not followed.registry._busy, "the refresh has ended")
    assert [line.rpartition(": ")[2] for line in log] == ["has 5 pages in a row that bring no other tenant"]
    assert len(paged.seen) == 6
    followed.now += REFRESH - 1
    followed.sweep()
    assert not followed.registry._busy
    followed.now += 1
    followed.sweep()
    assert followed.registry._busy
    await eventually(lambda: not followed.registry._busy, "the refresh has ended")
    followed.registry.stop()


# The list that was kept.


@pytest_twisted.ensureDeferred
async def test_without_the_registry_the_kept_list_is_used_until_it_answers(
    admin: Admin, tmp_path: Path, log: list[str]
) -> None:
    number = await admin.start()
    before = Followed(number, tmp_path)
    admin.lists(A)
    await before.refresh()
    before.registry.stop()
    await admin.stop()
    followed = Followed(number, tmp_path)
    await followed.refresh()
    assert followed.slugs == [["a"]]
    assert log[0] == f"info: starting with 1 tenants cached in {tmp_path / CACHE}"
    assert "Connection was refused" in log[1]
    await followed.refresh()
    assert followed.slugs == [["a"]]
    admin.lists(B)
    await admin.start(number)
    await followed.refresh()
    assert followed.slugs == [["a"], ["a", "b"]]
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_the_list_of_another_registry_is_not_used(admin: Admin, tmp_path: Path) -> None:
    number = await admin.start()
    before = Followed(number, tmp_path)
    admin.lists(A)
    await before.refresh()
    before.registry.stop()
    await admin.stop()
    followed = Followed(number, tmp_path, "/v1/admin/tenants?key=8")
    await followed.refresh()
    assert followed.read == []
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_kept_list_that_cannot_be_used_is_told_and_replaced(
    admin: Admin, tmp_path: Path, log: list[str]
) -> None:
    (tmp_path / CACHE).write_bytes(b"{")
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A)
    await followed.refresh()
    assert followed.slugs == [["a"]]
    (line,) = log
    assert line.startswith(f"warn: the cached tenants are not used: {tmp_path / CACHE}: cannot be used: ")
    assert json.loads((tmp_path / CACHE).read_bytes())["tenants"][0]["slug"] == "a"
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_a_list_that_cannot_be_kept_is_used_all_the_same(admin: Admin, tmp_path: Path, log: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    followed = Followed(await admin.start(), tmp_path / "file" / "state")
    for document in (A, B, A):
        admin.lists(document)
        await followed.refresh()
    assert followed.slugs == [["a"], ["a", "b"], ["a"]]
    cache = tmp_path / "file" / "state" / CACHE
    assert log == [
        f"warn: the cached tenants are not used: {cache}: cannot be used: not a directory",
        f"warn: the tenants could not be cached for the next start: {cache}: not a directory",
    ]
    assert followed.counters.registry_failures == 0
    followed.registry.stop()


@pytest_twisted.ensureDeferred
async def test_stopping_ends_what_is_under_way(admin: Admin, tmp_path: Path, log: list[str]) -> None:
    followed = Followed(await admin.start(), tmp_path)
    admin.silent = True
    followed.sweep()
    await eventually(lambda: admin.seen, "the registry is asked")
    gone = admin.gone()
    followed.registry.stop()
    await eventually(lambda: gone, "the connection is gone")
    assert (followed.read, log, followed.counters.registry_failures) == ([], [], 0)


@pytest_twisted.ensureDeferred
async def test_a_list_that_comes_after_the_end_is_not_used(admin: Admin, tmp_path: Path) -> None:
    """The thread that reads it cannot be called back."""
    followed = Followed(await admin.start(), tmp_path)
    admin.lists(A)
    followed.source.answered = followed.registry.stop
    await followed.refresh()
    assert len(admin.seen) == 1
    assert followed.read == []


# A gateway that follows a registry.


@pytest.mark.parametrize("host", [b"a.id.koder.dev", b"id.koder.dev", b"elsewhere.example", b""])
def test_nobody_is_refused_as_unknown_by_a_registry_that_was_not_read(host: bytes) -> None:
    refusal = UnreadTenants().resolve(host, [b"a"])
    assert refusal == OVERLOADED.because("The tenant registry has not been read yet.")
    assert b"Retry-After: 1\r\n" in refusal.fields


class Following:
    """A started gateway, in this process, whose registry is at a URL."""

    def __init__(self, folder: Path, registry: str, **options: Any) -> None:
        self.file = folder / "koder-gateway.toml"
        self.now = 0.0
        self.configure(registry)
        self.gateway = Gateway(
            load(self.file), ports=["tcp:0:interface=127.0.0.1"], reactor=reactor, clock=lambda: self.now, **options
        )
        self.gateway.startService()

    def configure(self, registry: str, base: str = BASE) -> None:
        self.file.write_text(
            f'[tenants]\nbase_domain = "{base}"\nregistry = "{registry}"\n'
            '[log]\naccess = false\n[state]\ndir = "state"\n'
        )

    async def code(self, host: str) -> str:
        """What the gateway says to a path that nobody has: no_route means that the host's tenant is known."""
        number = self.gateway.addresses[0].port
        response = await treq.get(
            f"http://127.0.0.1:{number}/nowhere", headers={"Host": host}, persistent=False, reactor=reactor
        )
        problem = await treq.json_content(response)
        if response.code == 503:
            assert response.headers.getRawHeaders("retry-after") == ["1"]
        return str(problem["code"])


NOBODY = "overloaded"
UNREAD = ["the tenant registry has not been read yet"]


@pytest_twisted.ensureDeferred
async def test_a_gateway_from_its_start_to_the_registrys_end(admin: Admin, tmp_path: Path) -> None:
    number = await admin.start()
    await admin.stop()
    following = Following(tmp_path, f"http://127.0.0.1:{number}/v1/admin/tenants")
    gateway = following.gateway
    await eventually(lambda: gateway.counters.registry_failures == 1, "the registry cannot be reached")
    assert gateway.unready() == UNREAD
    for host in ("a.id.koder.dev", "id.koder.dev", "login.a.example", "elsewhere.example"):
        assert await following.code(host) == NOBODY
    assert b"koder_gateway_registry_failures_total 1.0\n" in gateway.metrics()
    admin.lists([{"slug": "a", "domains": ["login.a.example"]}, {"slug": "b", "status": "suspended"}])
    await admin.start(number)
    following.now += 30
    await eventually(lambda: not gateway.unready(), "the registry has been read")
    assert await following.code("a.id.koder.dev") == "no_route"
    assert await following.code("login.a.example") == "no_route"
    assert await following.code("b.id.koder.dev") == "tenant_suspended"
    assert await following.code("c.id.koder.dev") == "unknown_tenant"
    assert await following.code("elsewhere.example") == "misdirected_request"
    assert b"koder_gateway_tenants 2.0\n" in gateway.metrics()
    await admin.stop()
    following.now += 30
    await eventually(lambda: gateway.counters.registry_failures == 2, "the registry has vanished")
    assert gateway.unready() == []
    assert await following.code("a.id.koder.dev") == "no_route"
    await gateway.stopService()


@pytest_twisted.ensureDeferred
async def test_a_gateway_starts_with_the_tenants_it_has_kept(admin: Admin, tmp_path: Path) -> None:
    admin.lists(A)
    url = f"http://127.0.0.1:{await admin.start()}/"
    first = Following(tmp_path, url)
    await eventually((tmp_path / "state" / CACHE).exists, "the registry has been read, and kept")
    await first.gateway.stopService()
    await admin.stop()
    second = Following(tmp_path, url)
    assert await second.code("a.id.koder.dev") in (NOBODY, "no_route")
    await eventually(lambda: not second.gateway.unready(), "the kept tenants have been read")
    assert await second.code("a.id.koder.dev") == "no_route"
    assert await second.code("c.id.koder.dev") == "unknown_tenant"
    await eventually(lambda: second.gateway.counters.registry_failures, "the registry is away")
    await second.gateway.stopService()


@pytest_twisted.ensureDeferred
async def test_a_reload_reads_the_registry_again_and_keeps_the_tenants_until_then(
    admin: Admin, tmp_path: Path
) -> None:
    admin.lists(A)
    number = await admin.start()
    following = Following(tmp_path, f"http://127.0.0.1:{number}/")
    gateway = following.gateway
    await eventually(lambda: not gateway.unready(), "the registry has been read")
    admin.lists(B)
    assert gateway.reload()
    assert await following.code("a.id.koder.dev") == "no_route"
    await eventually(lambda: gateway.counters.tenants == 2, "the registry has been read again")
    assert await following.code("b.id.koder.dev") == "tenant_suspended"
    # Another registry, which nobody has read: the tenants of the one before stay until somebody has.
    admin.silent = True
    following.configure(f"http://127.0.0.1:{number}/other")
    assert gateway.reload()
    await eventually(lambda: admin.seen[-1].path == b"/other", "the other registry is asked")
    gone = admin.gone()
    assert gateway.unready() == []
    assert await following.code("b.id.koder.dev") == "tenant_suspended"
    # A file: the answer that is still to come must not replace its tenants.
    (tmp_path / "tenants.toml").write_text('[[tenant]]\nslug = "c"\n')
    following.configure("tenants.toml")
    assert gateway.reload()
    assert await following.code("c.id.koder.dev") == "no_route"
    assert await following.code("a.id.koder.dev") == "unknown_tenant"
    await eventually(lambda: gone, "the other registry is asked no longer")
    await gateway.stopService()


@pytest_twisted.ensureDeferred
async def test_a_reload_from_no_registry_to_one_lets_nobody_in_unread(admin: Admin, tmp_path: Path) -> None:
    admin.lists(A)
    number = await admin.start()
    following = Following(tmp_path, "")
    assert await following.code("anybody.id.koder.dev") == "no_route"
    admin.silent = True
    following.configure(f"http://127.0.0.1:{number}/")
    assert following.gateway.reload()
    assert await following.code("anybody.id.koder.dev") == NOBODY
    assert following.gateway.unready() == UNREAD
    await eventually(lambda: admin.seen, "the registry is asked")
    gone = admin.gone()
    await following.gateway.stopService()
    await eventually(lambda: gone, "the registry is asked no longer")


def test_the_daemon_follows_a_registry_and_probes(tmp_path: Path) -> None:
    """As twistd runs it, on the reactor that it chooses itself."""

    asked: list[str] = []

    def play(peer: Any, number: int) -> None:
        while (received := peer.head()) is not None:
            asked.append(received.target.decode())
            listed = b'{"tenants": [{"slug": "acme"}]}'
            peer.send(answer(listed if received.target == b"/v1/admin/tenants" else b"ok"))

    with Origin(play) as origin:
        config = configuration({"a": origin.url}, {"tenants": {"registry": f"{origin.url}/v1/admin/tenants"}})
        config = config.replace(f'a = "{origin.url}"', f'a = {{ url = "{origin.url}", health = "/healthz" }}')
        with GatewayProcess(tmp_path, config) as gateway:
            until(lambda: gateway.ask_admin("/readyz")[0] == 200, "the registry has been read")
            until(lambda: "/healthz" in asked, "the service has been probed")
            with gateway.connect() as client:
                assert client.ask("GET", "/a/1").status == 200
                client.send(request("GET", "/a/1").replace(HOST.encode(), b"other.id.test"))
                assert client.read().code == "unknown_tenant"
            healthy = f'koder_gateway_upstream_healthy{{address="{origin.url}",service="a"}}'
            assert gateway.metrics()[healthy] == 1
            cache = tmp_path / "state" / CACHE
            until(cache.exists, "the tenants are kept")
            kept = json.loads(cache.read_bytes())
            assert [tenant["slug"] for tenant in kept["tenants"]] == ["acme"]
