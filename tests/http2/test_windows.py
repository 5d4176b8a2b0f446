"""Shut windows: what waits for a client of HTTP/2 is bounded, for one connection and for all, and must be taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koder_gateway.downstream.buffered import CONNECTION, MOST
from tests.http2.test_honest import switching
from tests.kit.bounds import client_limits, client_timeouts
from tests.kit.http2_client import Http2Client
from tests.kit.http2_frames import (
    DATA,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    block,
    data,
    headers,
    window_update,
)
from tests.kit.http2_memory import Http2, asking, assert_over
from tests.kit.memory import HOST, MemoryGateway, Peer, Transport
from tests.kit.recording import HOST as NAME
from tests.kit.recording import SETTINGS, running
from tests.kit.services import ANSWER

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
# One read of a transport's.
READ = 65536
STREAMS = 40


def asked(client: Http2, count: int, path: bytes = b"/v1/users") -> list[Peer]:
    """So many requests; their services' connections, in their order."""
    client.send(*[headers(2 * number + 1, asking(path)) for number in range(count)])
    return client.gateway.origin().connections


def play(services: list[Peer], size: int) -> list[int]:
    """Each service sends an answer of this size, a read at a time in turn, while it is read from; what each has
    got rid of."""
    sent = [0] * len(services)
    for number, service in enumerate(services):
        if not service.near.paused:
            service.send(HEAD % size)
            sent[number] = 1
    for _ in range(size // READ + 1):
        for number, service in enumerate(services):
            more = min(READ, size - sent[number] + 1)
            if sent[number] and more > 0 and not service.near.paused and not service.gone:
                service.send(b"x" * more)
                sent[number] += more
    return sent


@pytest.mark.parametrize("size", [60_000, 250_000, 10 << 20])
def test_what_waits_for_one_client_is_bounded(size: int) -> None:
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, STREAMS)
    assert len(services) == STREAMS
    sent = play(services, size)
    assert gateway.site.buffered.total == client.channel.out.waiting
    assert CONNECTION < client.channel.out.waiting <= CONNECTION + READ
    # A service whose answer is whole is nobody's any more.
    assert all(service.near.paused for service, gone in zip(services, sent, strict=True) if gone <= size)


def test_whoever_has_not_begun_to_answer_is_paused_too_and_is_not_late_for_it() -> None:
    """The response deadline stands while it is the client who holds the answer back."""
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, STREAMS)
    for service in services[:4]:
        service.send(HEAD % (2 * READ) + b"x" * READ)
    assert all(service.near.paused for service in services[4:])
    client.send(headers(2 * STREAMS + 1, asking()))
    assert services[STREAMS].near.paused, "nor is a request that comes now"
    came: list[Frame] = []
    for _ in range(70):
        came += client.send(window_update(0, 2000), *[window_update(2 * number + 1, 500) for number in range(4)])
        came += client.after(1)
    assert [each for each in came if each.kind == RST_STREAM] == []
    assert gateway.composition.services["identity"].failures == {}


def test_they_go_on_as_the_client_takes() -> None:
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, STREAMS)
    size = 60_000
    done: set[int] = set()
    got = 0
    client.send(window_update(0, 1 << 30))
    for _ in range(STREAMS * 4):
        for number, service in enumerate(services):
            if number not in done and not service.near.paused:
                done.add(number)
                service.send(HEAD % size + b"x" * size)
        assert client.channel.out.waiting <= CONNECTION + READ
        came = client.send(*[window_update(2 * number + 1, size) for number in done])
        came += client.after(0.25)
        got += sum(len(each.payload) for each in came if each.kind == DATA)
    assert (len(done), got) == (STREAMS, STREAMS * size)
    assert_over(client)
    assert gateway.site.buffered.total == 0


def test_what_little_waits_does_not_keep_all_that_came_with_it() -> None:
    """Windows that leave a byte of every read would hold the reads themselves."""
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, READ - 1))
    services = asked(client, STREAMS)
    client.send(window_update(0, 1 << 30))
    for service in services:
        service.send(HEAD % (2 * READ))
        service.send(b"x" * READ)
    send_windows = [stream.send_window for stream in client.channel.streams.open.values()]
    waiting = [piece for send_window in send_windows for piece in send_window.waiting]
    assert sum(map(len, waiting)) == STREAMS
    assert sum(len(piece.obj if isinstance(piece, memoryview) else piece) for piece in waiting) == STREAMS


@pytest.mark.parametrize("size", [60_000, 10 << 20])
def test_a_byte_of_window_now_and_then_does_not_keep_an_answer(size: int) -> None:
    gateway = MemoryGateway(timeouts=client_timeouts(idle=60.0))
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, 10)
    play(services, size)
    for _ in range(14):
        client.send(window_update(0, 10), *[window_update(2 * number + 1, 1) for number in range(10)])
        client.after(5)
    # The services of those that are left had not begun.
    assert {stream.send_window._sent for stream in client.channel.streams.open.values()} <= {0}
    assert gateway.site.buffered.total == client.channel.out.waiting == 0
    client.after(70)
    assert_over(client)
    assert gateway.idle()[1] == 0


def test_a_client_that_keeps_the_rate_keeps_its_answers() -> None:
    """On a slow line with many streams each gets its share, and all together the rate."""
    gateway = MemoryGateway(limits=client_limits(min_rate=1024.0))
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    services = asked(client, 8)
    play(services, 8_000)
    for _ in range(70):
        assert len(client.channel.streams) == 8
        client.send(window_update(0, 1024), *[window_update(2 * number + 1, 128) for number in range(8)])
        if client.channel.out.waiting == 0:
            break
        client.after(1)
    assert client.channel.out.waiting == 0


@pytest.mark.parametrize("upgrade", [False, True], ids=["answer", "tunnel"])
def test_a_client_that_takes_nothing_is_reset(upgrade: bool) -> None:
    gateway = MemoryGateway(timeouts=client_timeouts(idle=10.0))
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    if upgrade:
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":path", b"/v1/users"),
            (b":authority", HOST),
        ]
        client.send(headers(1, block(fields), end=False))
        service = gateway.origin().last
        key = next(line for line in service.take().split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        service.send(switching(key.partition(b": ")[2]))
    else:
        client.send(headers(1, asking()))
        service = gateway.origin().last
        service.send(HEAD % 100_000)
    service.send(b"x" * 90_000)
    assert service.near.paused
    came = client.after(11)
    assert [each.kind for each in came if each.kind == RST_STREAM] == [RST_STREAM]
    assert_over(client)
    assert not gateway.composition.tunnels.open
    assert gateway.site.buffered.total == 0


def test_too_much_for_all_clients_ends_what_waits_for_the_worst() -> None:
    gateway = MemoryGateway(limits=client_limits(max_buffered=300_000))
    greedy, small = Http2(gateway, (INITIAL_WINDOW_SIZE, 0)), Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    small.send(headers(1, asking()))
    gateway.origin().last.send(HEAD % 1000 + b"s" * 1000)
    clients = [greedy, *(Http2(gateway, (INITIAL_WINDOW_SIZE, 0)) for _ in range(4))]
    for client in clients:
        before = len(gateway.origin().connections)
        client.send(*[headers(2 * number + 1, asking()) for number in range(4)])
        for service in gateway.origin().connections[before:]:
            if not service.near.paused:
                service.send(HEAD % READ + b"x" * READ)
    # Beyond the bound one read each, and no more.
    assert gateway.site.buffered.total <= 300_000 + CONNECTION + len(clients) * READ
    gateway.advance(0.25)
    assert gateway.site.buffered.total <= 300_000
    came = small.send(window_update(1, 1000))
    assert b"".join(each.payload for each in came if each.kind == DATA) == b"s" * 1000


def test_heads_that_nobody_takes_count_too() -> None:
    """They need no window, so it is the transport that holds them."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    services = asked(client, STREAMS)
    client.peer.stop_reading()
    sent = 0
    for service in services:
        if not service.near.paused:
            service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Large: %b\r\n\r\n" % (b"x" * 50_000))
            gateway.reactor.advance(0)
            sent += 1
    assert sent * 50_000 <= CONNECTION + 4 * 65536
    client.peer.start_reading()
    for _ in range(STREAMS):
        gateway.advance(0.25)
    assert not any(service.near.paused for service in services if not service.gone)
    assert gateway.site.buffered.total == 0


@pytest.mark.parametrize("end", ["reset", "close"])
def test_nothing_stays_of_a_client_that_has_left(end: str) -> None:
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 0))
    play(asked(client, STREAMS), 250_000)
    assert gateway.site.buffered.total
    getattr(client.peer, end)()
    assert gateway.site.buffered.total == 0
    gateway.hang_up()


def test_others_are_served_beside_shut_windows(tmp_path) -> None:
    """Over sockets: 100 answers of 250 kB that nobody takes, on each of four connections."""
    alone = '\n[shares]\naddress = "100%"\ntenant = "100%"\n'
    with running(tmp_path, SETTINGS + alone, secure=True) as gateway:
        path = b"/v1/users/large"
        gateway.origin.answers[path] = ANSWER.replace(b"6\r", b"250000\r").replace(b"origin", b"o" * 250_000)
        with Http2Client.connect(gateway.port, NAME) as other:
            other.start()
            clients = [Http2Client.connect(gateway.port, NAME).start((INITIAL_WINDOW_SIZE, 0)) for _ in range(4)]
            for number, client in enumerate(clients):
                client.send(*[headers(2 * stream + 1, asking(path).replace(HOST, NAME)) for stream in range(100)])
                client.fence()
                other.send(headers(2 * number + 1, asking().replace(HOST, NAME)))
                assert other.answer(2 * number + 1).status in (200, 404, 421)
            for client in clients:
                client.close()
        gateway.assert_quiet()


@pytest.mark.parametrize(("window", "count"), [(65_535, 4), (1_000, 30)])
def test_a_stream_that_nobody_reads_holds_up_no_other(tmp_path, window: int, count: int) -> None:
    """Over sockets: large answers whose windows stay shut, and small ones on the same connection."""
    with running(tmp_path, SETTINGS, secure=True) as gateway:
        large = b"/v1/users/large"
        gateway.origin.answers[large] = ANSWER.replace(b"6\r", b"3000000\r").replace(b"origin", b"o" * 3_000_000)
        with Http2Client.connect(gateway.port, NAME) as client:
            client.start((INITIAL_WINDOW_SIZE, window))
            client.send(window_update(0, 1 << 30))
            client.send(*[headers(2 * each + 1, asking(large).replace(HOST, NAME)) for each in range(count)])
            taken = 0
            while taken < count * window // 2:
                came = client.next()
                assert came is not None, client.described()
                taken += len(came.payload) if came.kind == DATA else 0
            for number in range(count, count + 20):
                client.send(headers(2 * number + 1, asking().replace(HOST, NAME)))
                assert client.answer(2 * number + 1).body == b"origin"


def test_what_waits_beside_them_is_bounded_where_a_transport_reads_as_it_likes() -> None:
    gateway = MemoryGateway()
    client = Http2(gateway, (INITIAL_WINDOW_SIZE, 1000))
    client.send(window_update(0, 1 << 30))
    services = asked(client, STREAMS)
    play(services, 10 << 20)
    assert MOST < client.channel.out.waiting <= MOST + READ
    assert all(service.near.paused for service in services)


def test_what_the_kernel_says_of_the_client_holds_for_each_stream_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = MemoryGateway()
    Http2(gateway)
    (channel,) = gateway.site.channels
    held = 5000
    monkeypatch.setattr("koder_gateway.http2.channel.backlog", lambda transport: held)
    assert [channel.taking(60.0) for _ in range(3)] == [True] * 3
    gateway.clock.now += 60.0
    assert [channel.taking(60.0) for _ in range(3)] == [False] * 3
    held = 4000
    assert [channel.taking(60.0) for _ in range(3)] == [True] * 3
    held = -1
    assert not channel.taking(60.0)
    gateway.hang_up()


# -- what comes, and the services do not take


def uploads(client: Http2, count: int) -> list[Peer]:
    """So many bodies begin, with a byte each, to services that read nothing else; the services' connections."""
    for number in range(1, 2 * count, 2):
        client.send(headers(number, asking(method=b"POST"), end=False), data(number, b"x"))
    services = client.gateway.origin().connections
    for service in services:
        service.stop_reading()
    return services


@pytest.mark.parametrize("end", [False, True], ids=["open", "ended"])
def test_small_frames_that_no_service_takes_are_kept_as_one_and_arrive_in_order(end: bool) -> None:
    gateway = MemoryGateway()
    client = Http2(gateway)
    (service,) = uploads(client, 1)
    head = len(service.received)
    client.send(*[data(1, b"x" * 16384)] * 5)
    unsent = len(service.near._unsent)
    letters = [b"%c" % (97 + number % 26) for number in range(5000)]
    client.send(*[data(1, letter) for letter in letters])
    assert len(service.near._unsent) == unsent
    client.send(data(1, b"!", end=end))
    service.start_reading()
    client.after(1)
    body = service.take()[head:]
    payload = b"x" * 16384 * 5 + b"".join(letters) + b"!"
    assert b"".join(body.split(b"\r\n")[1::2])[: len(payload)] == payload
    assert body.endswith(b"0\r\n\r\n") is end


def test_what_all_streams_send_ahead_is_bounded_and_paid_back() -> None:
    """Past a few services that take nothing, the client may send no more than its window to any."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    services = uploads(client, 20)
    room = 65535 + sum(size_of(each) for each in client.first if (each.kind, each.stream) == (WINDOW_UPDATE, 0))
    sent = 20
    came: list[Frame] = []
    for number in [number for number in range(20) for _ in range(6)]:
        if sent + 16384 <= room:
            came = client.send(data(2 * number + 1, b"x" * 16384))
            room += sum(size_of(each) for each in came if (each.kind, each.stream) == (WINDOW_UPDATE, 0))
            sent += 16384
    held = sum(len(service.near._unsent) for service in services)
    assert room == 1 << 19, "nothing has been paid back"
    assert room - 16384 < sent <= room
    assert held < sent
    for service in services:
        service.start_reading()
    came = client.after(1)
    assert sum(size_of(each) for each in came if (each.kind, each.stream) == (WINDOW_UPDATE, 0)) > 0
    assert [each for each in came if each.kind == RST_STREAM] == []


def size_of(update: Frame) -> int:
    """By how much a WINDOW_UPDATE enlarges the window."""
    return int.from_bytes(update.payload, "big")


def test_bytes_of_a_tunnel_that_does_not_stand_yet_are_kept_as_one() -> None:
    gateway = MemoryGateway()
    client = Http2(gateway)
    fields = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/v1/users"),
        (b":authority", HOST),
    ]
    client.send(headers(1, block(fields), end=False))
    service = gateway.origin().last
    key = next(line for line in service.take().split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    client.send(*[data(1, b"%d" % (number % 10)) for number in range(1000)])
    assert service.take() == b""
    service.send(switching(key.partition(b": ")[2]))
    assert service.take() == b"0123456789" * 100


def test_streams_that_share_the_connection_s_last_bytes_all_go_on_when_it_opens() -> None:
    """The first of those who wait for more fills what there is; the others must not be forgotten."""
    gateway = MemoryGateway()
    client = Http2(gateway)
    play(asked(client, 4), 30_000)
    client.after(1)
    came = client.send(window_update(0, 1 << 20))
    came += client.after(1)
    ended = {each.stream for each in came if each.kind == DATA and each.flags & 1}
    assert {1, 3, 5, 7} - ended <= {1, 3}, "these had ended before"
    assert not client.channel.streams


def test_of_a_large_answer_no_more_is_read_at_once_than_its_client_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[Callable[[], int]] = []
    monkeypatch.setattr(Transport, "read_fitting", lambda transport, room: rooms.append(room), raising=False)
    gateway = MemoryGateway()
    client = Http2(gateway)
    (service,) = asked(client, 1)
    service.send(HEAD % 2000 + b"x" * 2000)
    client.send(headers(3, asking()))
    service.send(HEAD % 40_000 + b"x" * 40_000)
    assert not rooms, "small answers and whole ones cost no call"
    client.send(headers(5, asking()), window_update(0, 1 << 20))
    service.send(HEAD % 40_000)
    (room,) = rooms
    assert room() == client.channel.streams.open[5].send_window.room > 0
    service.send(b"x" * 40_000)
    assert len(rooms) == 1, "the next answer may be another client's"
    assert room() == 0
