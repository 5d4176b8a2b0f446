"""Two gateways on one Redis: together they admit what one would. And what clients get when Redis fails them."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.clients import first_of, request
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.http1 import Message
from tests.kit.redis import Redis
from tests.kit.services import Origin, Peer, answer
from tests.kit.waiting import PATIENCE, until

# Rates of which no token comes back within a test.
SLOW = 'rate = "200/d"\nburst = 200'
UP = "koder_gateway_limits_store_up"


def limit(name: str, *lines: str, path: str = "/s") -> str:
    """A table of limits, counted by tenant."""
    return "\n".join(["[[limits]]", f'name = "{name}"', 'key = ["tenant"]', f'paths = ["{path}"]', *lines, ""])


def shared(gateway: GatewayProcess) -> bool:
    """Whether it shares its limits at present."""
    return gateway.metrics().get(UP) == 1


class Fleet:
    """Gateways on one store, before one service whose `answers` a test may change by path."""

    def __init__(self, folder: Path, url: str, limits: str, count: int = 2, store: dict[str, object] | None = None):
        self.answers: dict[bytes, Callable[[], bytes]] = {}
        self._stack = ExitStack()
        self.origin = self._stack.enter_context(Origin(self._serve))
        section = {"url": url, "timeout": "2s", **(store or {})}
        self.config = configuration({"s": self.origin.url}, {"limits_store": section}, limits)
        self.gateways = [
            self._stack.enter_context(GatewayProcess(folder / f"gateway{number}", self.config))
            for number in range(count)
        ]

    def _serve(self, peer: Peer, number: int) -> None:
        while (received := peer.head()) is not None:
            peer.body(received)
            said = self.answers.get(received.target)
            peer.send(answer(b"fresh") if said is None else said())

    def share(self) -> None:
        """Wait until all of them share their limits."""
        for gateway in self.gateways:
            until(lambda gateway=gateway: shared(gateway), "limits are shared")

    def count(self, path: str, each: int, threads: int = 4) -> dict[int, int]:
        """How many answers there are of each status to so many requests in each of some threads, at all gateways."""
        counts: dict[int, int] = {}
        lock = threading.Lock()

        def ask(number: int) -> None:
            with self.gateways[number % len(self.gateways)].connect() as client:
                for _ in range(each):
                    status = client.ask("GET", path).status
                    with lock:
                        counts[status] = counts.get(status, 0) + 1

        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(ask, number) for number in range(threads)]:
                done.result()
        return counts

    def metric(self, name: str) -> float:
        """The sum of a metric of all gateways."""
        return sum(gateway.metrics()[name] for gateway in self.gateways)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own."""
    with Redis(tmp_path / "redis") as server:
        yield server


def test_two_gateways_admit_together_what_one_would(redis: Redis, tmp_path: Path) -> None:
    limits = limit("rate", SLOW) + limit("shadow", 'rate = "50/d"', 'mode = "shadow"')
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits) as fleet:
        fleet.share()
        assert fleet.count("/s/a", 100) == {200: 200, 429: 200}
        assert fleet.metric('koder_gateway_limit_decisions_total{decision="admitted",rule="shadow"}') == 50
        assert fleet.metric('koder_gateway_limit_decisions_total{decision="shadowed",rule="shadow"}') == 350
        assert fleet.metric("koder_gateway_limits_store_missed_total") == 0
        assert fleet.metric('koder_gateway_limits_store_decisions_total{by="store"}') == 400


def test_a_rate_is_that_of_one_gateway(redis: Redis, tmp_path: Path) -> None:
    """Tokens come back by the store's clock, for all gateways together."""
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limit("rate", 'rate = "100/s"', "burst = 20")) as fleet:
        fleet.share()
        begun = time.monotonic()
        admitted = fleet.count("/s/a", 100)[200]
        most = 20 + 100 * (time.monotonic() - begun)
        assert admitted <= most * 1.01


def test_the_fields_are_those_of_one_gateway(redis: Redis, tmp_path: Path) -> None:
    limits = limit("r", 'rate = "2/h"') + limit("other", 'rate = "60/m"', "burst = 10")
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits) as fleet:
        fleet.share()
        policy = b'"r";q=2;w=3600, "other";q=10;w=10'
        with fleet.gateways[0].connect() as one, fleet.gateways[1].connect() as other:
            first, second, third = (client.ask("GET", "/s/a") for client in (one, other, one))
        assert [first.status, second.status, third.status] == [200, 200, 429]
        assert {each.value(b"ratelimit-policy") for each in (first, second, third)} == {policy}
        assert re.fullmatch(rb'"r";r=1;t=1800, "other";r=9;t=1', first.value(b"ratelimit") or b"")
        assert (second.value(b"ratelimit") or b"").startswith(b'"r";r=0;t=1')
        assert 1790 <= int(third.value(b"retry-after") or b"") <= 1800
        assert json.loads(third.body)["code"] == "rate_limited"


def test_failures_are_counted_together_also_those_in_flight(redis: Redis, tmp_path: Path) -> None:
    limits = limit("guesses", 'rate = "10/d"', 'charge = "failures"')
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits) as fleet:
        fleet.share()
        fleet.answers[b"/s/login"] = lambda: answer(b"wrong", status="401 Unauthorized")
        assert fleet.count("/s/good", 20) == {200: 80}
        counted = fleet.count("/s/login", 10, threads=1)
        assert counted == {401: 10}
        assert fleet.count("/s/login", 5) == {429: 20}
        assert fleet.count("/s/good", 5) == {429: 20}


def test_requests_in_flight_of_both_gateways_count(redis: Redis, tmp_path: Path) -> None:
    limits = limit("guesses", 'rate = "2/d"', 'charge = "failures"')
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits) as fleet:
        fleet.share()
        go = threading.Event()

        def late() -> bytes:
            assert go.wait(PATIENCE)
            return answer(b"wrong", status="401 Unauthorized")

        fleet.answers[b"/s/login"] = late
        with ExitStack() as stack:
            clients = [stack.enter_context(fleet.gateways[number % 2].connect()) for number in range(12)]
            for client in clients:
                client.send(request("GET", "/s/login"))
            # Four for each token left.
            first_of(clients, 4)
            until(lambda: fleet.metric("koder_gateway_exchanges_in_flight") == 8, "eight are in flight")
            go.set()
            statuses = sorted(client.read().status for client in clients)
        assert statuses == [401] * 8 + [429] * 4
        # All eight failed, so six are owed.
        assert fleet.count("/s/good", 1, threads=2) == {429: 2}
        assert redis.ask("KEYS", "*:f=*") == []


def test_without_the_store_each_limit_acts_as_it_says_and_nobody_gets_a_500(redis: Redis, tmp_path: Path) -> None:
    limits = (
        limit("local", 'rate = "5/d"', path="/s/local")
        + limit("open", 'rate = "5/d"', 'on_failure = "open"', path="/s/open")
        + limit("closed", 'rate = "5/d"', 'on_failure = "closed"', path="/s/closed")
    )
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits, count=1) as fleet:
        fleet.share()
        for path in ("/s/local", "/s/open", "/s/closed"):
            assert fleet.count(path, 3, threads=1) == {200: 3}
        redis.kill()
        [gateway] = fleet.gateways
        until(lambda: not shared(gateway), "it is noticed")
        # Two are left as far as the gateway knows.
        assert fleet.count("/s/local", 4, threads=1) == {200: 2, 429: 2}
        assert fleet.count("/s/open", 10, threads=1) == {200: 10}
        with gateway.connect() as client:
            refused = client.ask("GET", "/s/closed")
        assert refused.status == 503
        assert refused.values(b"retry-after") == [b"1"]
        assert json.loads(refused.body)["code"] == "overloaded"
        assert gateway.ask_admin("/readyz")[0] == 200
        redis.start()
        fleet.share()
        # That Redis has begun anew, and learns from the gateway what is spent.
        assert fleet.count("/s/closed", 4, threads=1) == {200: 2, 429: 2}
        told = [line.partition("] ")[2] for line in gateway.log().splitlines() if "redis://" in line]
        lost = told[1:-1]
        # It closed the connection, and may have refused another one: each reason is told once.
        assert 1 <= len(lost) <= 2, told
        assert len(set(lost)) == len(lost), told
        assert told[0] == told[-1], told


def test_nobody_waits_longer_than_the_timeout_for_a_hung_store(redis: Redis, tmp_path: Path) -> None:
    store: dict[str, object] = {"timeout": "300ms"}
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limit("r", SLOW), count=1, store=store) as fleet:
        fleet.share()
        redis.hang()
        [gateway] = fleet.gateways
        with gateway.connect() as client:
            assert client.ask("GET", "/s/a").status == 200
        assert not shared(gateway)
        assert fleet.metric("koder_gateway_limits_store_missed_total") == 1
        assert fleet.count("/s/a", 10, threads=1) == {200: 10}
        assert fleet.metric("koder_gateway_limits_store_missed_total") == 1
        redis.go_on()
        fleet.share()
        assert fleet.count("/s/a", 5, threads=1) == {200: 5}


def test_a_client_that_goes_while_it_waits_leaves_nothing_in_flight(redis: Redis, tmp_path: Path) -> None:
    limits = limit("guesses", 'rate = "2/d"', 'charge = "failures"')
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limits, count=1) as fleet:
        fleet.share()
        [gateway] = fleet.gateways
        for _ in range(20):
            with gateway.connect() as client:
                client.send(request("GET", "/s/a"))
                client.abort()
        until(lambda: fleet.metric("koder_gateway_exchanges_in_flight") == 0, "all have ended")
        until(lambda: redis.ask("KEYS", "*:f=*") == [], "none is in flight")


@pytest.mark.parametrize("way", ["tls", "unix"])
def test_the_store_is_reached_by_tls_with_a_password_and_by_a_socket(tmp_path: Path, way: str) -> None:
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("localhost") if way == "tls" else None
    (tmp_path / "password").write_text("sesame\n")
    with Redis(tmp_path / "redis", pair=pair, password="sesame") as server:
        url = f"rediss://localhost:{server.port}/1" if way == "tls" else f"unix:{server.path}"
        store: dict[str, object] = {"password_file": str(tmp_path / "password")}
        if way == "tls":
            store["ca"] = str(authority.path)
        with Fleet(tmp_path, url, limit("r", 'rate = "3/d"'), store=store) as fleet:
            fleet.share()
            assert fleet.count("/s/a", 3, threads=2) == {200: 3, 429: 3}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("other.example", '"other.example"; correct limits_store.url, or the store\'s certificate; until'),
        ("localhost", "set limits_store.ca to its issuer, or have the store send its whole chain; until"),
    ],
)
def test_a_store_that_cannot_prove_who_it_is_is_not_asked(tmp_path: Path, name: str, fault: str) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "stranger", "Stranger")
    pair = (authority if name != "localhost" else stranger).issue(name)
    with Redis(tmp_path / "redis", pair=pair) as server:
        store: dict[str, object] = {"ca": str(authority.path)}
        url = f"rediss://localhost:{server.port}/0"
        with Fleet(tmp_path, url, limit("r", 'rate = "3/d"'), count=1, store=store) as fleet:
            [gateway] = fleet.gateways
            until(lambda: f"{url}: " in gateway.log(), "it is logged")
            line = next(line for line in gateway.log().splitlines() if f"{url}: " in line)
            assert fault in line
            assert fleet.count("/s/a", 4, threads=1) == {200: 3, 429: 1}
            assert server.ask("INFO", "commandstats").count("cmdstat_evalsha") == 0


@pytest.mark.parametrize(
    ("tls", "scheme", "fault"),
    [(False, "rediss", "without TLS needs redis://"), (True, "redis", "TLS needs rediss://")],
)
def test_the_log_says_that_the_scheme_is_the_wrong_one(tls: bool, scheme: str, fault: str, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "ca").issue("localhost") if tls else None
    with Redis(tmp_path / "redis", pair=pair) as server:
        url = f"{scheme}://localhost:{server.port}/0"
        with Fleet(tmp_path, url, limit("r", 'rate = "3/d"'), count=1) as fleet:
            [gateway] = fleet.gateways
            until(lambda: f"{url}: " in gateway.log(), "it is logged")
            line = next(line for line in gateway.log().splitlines() if f"{url}: " in line)
            assert fault in line


def test_what_is_spent_stays_so_when_the_store_forgets_it(redis: Redis, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{redis.port}/0"
    with Fleet(tmp_path, url, limit("r", 'rate = "3/d"')) as fleet:
        fleet.share()
        assert fleet.count("/s/a", 3, threads=2) == {200: 3, 429: 3}
        redis.ask("FLUSHALL")  # as an eviction
        assert fleet.count("/s/a", 3, threads=2) == {429: 6}
        redis.kill()
        until(lambda: not any(map(shared, fleet.gateways)), "all have seen that")
        redis.start()
        fleet.share()
        assert fleet.count("/s/a", 3, threads=2) == {429: 6}


def test_a_reload_changes_the_store_and_closes_the_old_one(redis: Redis, tmp_path: Path) -> None:
    with (
        Redis(tmp_path / "other") as other,
        Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limit("r", 'rate = "3/d"'), count=1) as fleet,
    ):
        fleet.share()
        [gateway] = fleet.gateways
        assert fleet.count("/s/a", 4, threads=1) == {200: 3, 429: 1}

        def connections(server: Redis) -> int:
            return len(re.findall(r"^id=.* cmd=evalsha", str(server.ask("CLIENT", "LIST")), re.MULTILINE))

        def reload(url: str) -> None:
            before = gateway.metrics()['koder_gateway_reloads_total{result="ok"}']
            config = re.sub(r'url = "(redis|memory):.*"', f'url = "{url}"', fleet.config)
            gateway.config.write_text(config.replace('timeout = "2s"\n', "") if url == "memory:" else config)
            gateway.signal(1)
            until(lambda: gateway.metrics()['koder_gateway_reloads_total{result="ok"}'] > before, "it is reloaded")

        assert connections(redis) == 1
        reload(f"redis://127.0.0.1:{other.port}/0")
        until(lambda: connections(other) == 1 and connections(redis) == 0, "the other one is used")
        until(lambda: shared(gateway), "limits are shared there")
        # What is spent stays so: the new store learns it from the gateway.
        assert fleet.count("/s/a", 1, threads=1) == {429: 1}
        reload("memory:")
        until(lambda: connections(other) == 0, "none is used")
        assert UP not in gateway.metrics()
        assert fleet.count("/s/a", 1, threads=1) == {429: 1}
        reload(f"redis://127.0.0.1:{redis.port}/0")
        fleet.share()
        assert fleet.count("/s/a", 1, threads=1) == {429: 1}


def test_a_server_that_drips_its_answers_is_given_up(tmp_path: Path) -> None:
    """Each byte comes in time, the whole answer never does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        over = threading.Event()

        def drip() -> None:
            while not over.is_set():
                connection, _ = listening.accept()
                with closing(connection):
                    for byte in b"$40\r\n" + b"0" * 35:
                        try:
                            connection.sendall(bytes([byte]))
                        except OSError:
                            break
                        if over.wait(0.02):
                            return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{port}/0"
        with Fleet(tmp_path, url, limit("r", 'rate = "3/d"'), count=1) as fleet:
            assert fleet.count("/s/a", 4, threads=1) == {200: 3, 429: 1}
            [gateway] = fleet.gateways
            until(lambda: f"{url}: " in gateway.log(), "it is logged")
        over.set()


def test_every_way_in_is_limited_by_the_store(redis: Redis, tmp_path: Path) -> None:
    """Bodies arrive whole although the request waits, and pipelined requests keep their order."""
    with Fleet(tmp_path, f"redis://127.0.0.1:{redis.port}/0", limit("r", 'rate = "4/d"'), count=1) as fleet:
        fleet.share()
        bodies: list[bytes] = []

        def serve(peer: Peer, number: int) -> None:
            while (received := peer.head()) is not None:
                bodies.append(peer.body(received))
                peer.send(answer(received.target))

        fleet.origin.play = serve
        [gateway] = fleet.gateways
        with gateway.connect() as client:
            posts = [request("POST", f"/s/{number}", body=b"body%d" % number) for number in range(3)]
            chunked = request("POST", "/s/3", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
            client.send(b"".join(posts) + chunked + b"5\r\nbody3\r\n0\r\n\r\n")
            answers: list[Message] = [client.read("POST") for _ in range(4)]
            assert [each.body for each in answers] == [b"/s/0", b"/s/1", b"/s/2", b"/s/3"]
            assert client.ask("POST", "/s/4", body=b"body4").status == 429
        assert bodies == [b"body0", b"body1", b"body2", b"body3"]
