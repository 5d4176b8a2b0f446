"""The client's address behind trusted proxies."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.policy.clients import TrustedProxies, node_of, parse_address, plain_host


def held_after(work: Callable[[], object]) -> int:
    """The bytes of memory that are still held of those taken by `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


PROXIES = TrustedProxies(["10.0.0.0/8", "192.0.2.1", "2001:db8:aaaa::/48"])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("11.0.0.1", False),
        ("2001:db8:aaaa::7", True),
        ("2001:db8:aaab::7", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_who_is_trusted(peer: str, trusted: bool) -> None:
    assert PROXIES.trusts(peer) is trusted
    assert PROXIES.trusts(peer) is trusted


def test_nobody_is_trusted_by_default() -> None:
    nobody = TrustedProxies([])
    assert not nobody.trusts("127.0.0.1")
    assert nobody.client("127.0.0.1", [b"8.8.8.8"], [b"for=8.8.8.8"]) == "127.0.0.1"


def test_a_bad_network_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/33"):
        TrustedProxies(["10.0.0.0/33"])


def test_trust_stays_right_for_more_peers_than_are_remembered() -> None:
    for number in range(10_000):
        assert not PROXIES.trusts(f"203.0.{number // 256}.{number % 256}")
    assert PROXIES.trusts("10.0.0.1")


def test_a_flood_of_peers_takes_bounded_memory() -> None:
    """Some 4,000 peers that are remembered take less than half a MiB; all of these would take three."""
    proxies = TrustedProxies(["10.0.0.0/8"])

    def flood() -> None:
        for number in range(40_000):
            proxies.trusts(f"203.0.{number >> 8}.{number & 255}")

    assert held_after(flood) < 1 << 20


def test_a_flood_of_forwarded_addresses_takes_bounded_memory() -> None:
    """The addresses in the fields are remembered apart from the peers, those of proxies' proxies among the peers."""
    proxies = TrustedProxies(["10.0.0.0/8"])

    def flood() -> None:
        for number in range(40_000):
            proxies.client("10.0.0.1", [b"10.0.%d.%d" % (number >> 8, number & 255)], [])

    assert held_after(flood) < 3 << 20


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        ([b"203.0.113.7, 10.0.0.9"], "203.0.113.7"),
        ([b"1.1.1.1", b"203.0.113.7 ,\t10.0.0.9"], "203.0.113.7"),
        ([b"10.0.0.8, 10.0.0.9"], "10.0.0.8"),
        ([b"203.0.113.7:4711"], "203.0.113.7"),
        ([b"2001:DB8::1"], "2001:db8::1"),
        ([b"[2001:db8::1]"], "2001:db8::1"),
        ([b"[2001:db8::1]:4711"], "2001:db8::1"),
        ([b"::ffff:203.0.113.7"], "203.0.113.7"),
        ([b"203.0.113.7, 2001:db8:aaaa::1"], "203.0.113.7"),
        # What cannot be read stops the walk at the last that could.
        ([b"1.1.1.1, unknown"], "10.0.0.1"),
        ([b"1.1.1.1, unknown, 10.0.0.9"], "10.0.0.9"),
        ([b"1.1.1.1,"], "10.0.0.1"),
        ([b"1.1.1.1, , 10.0.0.9"], "10.0.0.9"),
        ([b"1.1.1.256"], "10.0.0.1"),
        ([b"1.1.1.1:x"], "10.0.0.1"),
        ([b"fe80::1%eth0"], "10.0.0.1"),
        ([b"1.1.1.1\xff"], "10.0.0.1"),
        ([b"0" * 5000], "10.0.0.1"),
        ([b""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_x_forwarded_for(forwarded_for: list[bytes], client: str) -> None:
    assert PROXIES.client("10.0.0.1", forwarded_for, []) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([b"for=203.0.113.7"], "203.0.113.7"),
        ([b"For=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        ([b"proto=https ; for=203.0.113.7"], "203.0.113.7"),
        ([b"for=1.1.1.1, for=203.0.113.7"], "203.0.113.7"),
        ([b"for=203.0.113.7, for=10.0.0.9"], "203.0.113.7"),
        ([b"for=203.0.113.7", b"for=10.0.0.9"], "203.0.113.7"),
        ([b'for="[2001:db8::1]:4711"'], "2001:db8::1"),
        ([b'for="[2001:db8::1]"'], "2001:db8::1"),
        ([b'for="203.0.113.7:80"'], "203.0.113.7"),
        ([b"for=203.0.113.7:80"], "203.0.113.7"),
        ([b'for="203.0.113\\.7"'], "203.0.113.7"),
        ([b'for=203.0.113.7;by="a,b;c=\\"d"'], "203.0.113.7"),
        # Unknown, obfuscated, absent, malformed: the walk stops.
        ([b"for=1.1.1.1, for=unknown"], "10.0.0.1"),
        ([b"for=1.1.1.1, for=_hidden, for=10.0.0.9"], "10.0.0.9"),
        ([b"for=1.1.1.1, proto=https"], "10.0.0.1"),
        ([b"for=1.1.1.1;for=2.2.2.2"], "10.0.0.1"),
        ([b'for="";for=2.2.2.2'], "10.0.0.1"),
        ([b"for=1.1.1.1,"], "10.0.0.1"),
        ([b"for = 1.1.1.1"], "10.0.0.1"),
        ([b"1.1.1.1"], "10.0.0.1"),
        ([b'for="1.1.1.1'], "10.0.0.1"),
        # A client's stray quote does not turn the proxy's own words into its own.
        ([b'for="x, for=203.0.113.7'], "10.0.0.1"),
        ([b'for="x, for="1.1.1.1"'], "10.0.0.1"),
        ([b'for="x', b"for=203.0.113.7"], "203.0.113.7"),
        ([b'for="x', b"for=10.0.0.9"], "10.0.0.9"),
    ],
)
def test_forwarded(forwarded: list[bytes], client: str) -> None:
    assert PROXIES.client("10.0.0.1", [], forwarded) == client


def test_an_untrusted_peer_is_the_client_whatever_it_says() -> None:
    assert PROXIES.client("198.51.100.9", [b"10.0.0.1"], [b"for=10.0.0.1"]) == "198.51.100.9"


@pytest.mark.parametrize(
    ("forwarded_for", "forwarded", "client"),
    [
        # Both fields name one client, in whatever form.
        ([b"203.0.113.7"], [b"for=203.0.113.7"], "203.0.113.7"),
        ([b"1.1.1.1, 203.0.113.7"], [b"for=2.2.2.2, for=203.0.113.7;proto=https"], "203.0.113.7"),
        ([b"203.0.113.7, 10.0.0.9"], [b'for="203.0.113.7:80"'], "203.0.113.7"),
        ([b"2001:DB8::1"], [b'for="[2001:db8::1]:4711"'], "2001:db8::1"),
        # One of them is the client's own invention.
        ([b"1.1.1.1"], [b"for=203.0.113.7"], "10.0.0.1"),
        ([b"203.0.113.7"], [b"for=1.1.1.1"], "10.0.0.1"),
        ([b"203.0.113.7, 10.0.0.9"], [b"for=1.1.1.1, for=10.0.0.9"], "10.0.0.1"),
        ([b"203.0.113.7"], [b"for=10.0.0.9"], "10.0.0.1"),
        # One that cannot be read names the peer.
        ([b"203.0.113.7"], [b"for=unknown"], "10.0.0.1"),
        ([b"unknown"], [b"for=203.0.113.7"], "10.0.0.1"),
        ([b"203.0.113.7"], [b'for="x'], "10.0.0.1"),
        ([b" "], [b"for=203.0.113.7"], "10.0.0.1"),
        # An empty field says nothing.
        ([b"203.0.113.7"], [b""], "203.0.113.7"),
        ([b""], [b"for=203.0.113.7"], "203.0.113.7"),
        ([b""], [b""], "10.0.0.1"),
    ],
)
def test_both_fields_are_believed_only_where_they_agree(
    forwarded_for: list[bytes], forwarded: list[bytes], client: str
) -> None:
    assert PROXIES.client("10.0.0.1", forwarded_for, forwarded) == client


def test_addresses_have_one_form() -> None:
    assert str(parse_address("::FFFF:1.2.3.4")) == "1.2.3.4"
    assert str(parse_address("fe80::1%eth0")) == "fe80::1"
    assert parse_address("") is None
    assert parse_address("1.2.3") is None


addresses = st.ip_addresses().map(str)


@given(st.lists(addresses, max_size=4), addresses.filter(lambda a: not PROXIES.trusts(a)), st.integers(0, 3))
def test_nothing_left_of_the_first_untrusted_address_matters(lies: list[str], real: str, proxies: int) -> None:
    chain = [*lies, real, *(f"10.0.0.{number}" for number in range(proxies))]
    expected = str(parse_address(real))
    assert PROXIES.client("10.9.9.9", [", ".join(chain).encode()], []) == expected
    quoted = ", ".join(f'for="[{each}]"' if ":" in each else f"for={each}" for each in chain)
    assert PROXIES.client("10.9.9.9", [], [quoted.encode()]) == expected


@given(st.lists(addresses, max_size=3), addresses.filter(lambda a: not PROXIES.trusts(a)), st.booleans())
def test_a_client_cannot_choose_its_address_by_the_field_that_its_proxy_leaves_alone(
    lies: list[str], real: str, appends_plain: bool
) -> None:
    """It may only hide among the peer's own requests."""
    truth = str(parse_address(real))
    quoted = [f'for="[{each}]"' if ":" in each else f"for={each}" for each in (*lies, real)]
    if appends_plain:
        client = PROXIES.client(
            "10.9.9.9", [", ".join((*lies, real)).encode()], [each.encode() for each in quoted[:-1]]
        )
    else:
        client = PROXIES.client("10.9.9.9", [each.encode() for each in lies], [", ".join(quoted).encode()])
    assert client in (truth, "10.9.9.9")
    assert lies or client == truth


@given(st.lists(st.binary(max_size=50), max_size=3), st.lists(st.binary(max_size=50), max_size=3))
def test_any_bytes_give_an_address(forwarded_for: list[bytes], forwarded: list[bytes]) -> None:
    assert parse_address(PROXIES.client("10.9.9.9", forwarded_for, forwarded)) is not None


@pytest.mark.parametrize(
    ("cidrs", "believed"),
    [
        ([], {"10.0.0.1", "192.0.2.9", "unknown"}),
        (["10.0.0.0/8"], {"10.0.0.1"}),
        (["unix:"], {"unknown"}),
        (["unix:", "10.0.0.0/8"], {"unknown", "10.0.0.1"}),
    ],
)
def test_who_may_introduce_a_client(cidrs: list[str], believed: set[str]) -> None:
    proxies = TrustedProxies(cidrs)
    assert {peer for peer in ("10.0.0.1", "192.0.2.9", "unknown") if proxies.introduces(peer)} == believed
    # To believe forwarded fields takes more than an empty list.
    assert proxies.trusts("unknown") is ("unix:" in cidrs)


@pytest.mark.parametrize(
    ("cidr", "trusted", "strange"),
    [
        ("::ffff:0:0/96", ["10.0.0.1", "::ffff:192.0.2.1"], ["2001:db8::1", "::1"]),
        ("::ffff:10.0.0.0/104", ["10.255.0.1", "::ffff:10.0.0.1"], ["11.0.0.1", "64:ff9b::10.0.0.1"]),
        ("::ffff:192.0.2.1", ["192.0.2.1"], ["192.0.2.2"]),
        ("192.0.2.0/24", ["::ffff:192.0.2.9", "64:ff9b::192.0.2.9"], ["::192.0.2.9"]),
        ("64:ff9b::/96", ["64:ff9b::10.0.0.1"], ["192.0.2.1", "10.0.0.1"]),
    ],
)
def test_ipv4_within_ipv6_is_ipv4(cidr: str, trusted: list[str], strange: list[str]) -> None:
    proxies = TrustedProxies([cidr])
    assert all(map(proxies.trusts, trusted))
    assert not any(map(proxies.trusts, strange))


def test_the_way_through_proxies_has_an_end() -> None:
    """However long a trusted network makes it, what is told of it is bounded."""
    hops = [f"10.0.{number >> 8}.{number & 255}" for number in range(5000)]
    forwarded_for = b", ".join(hop.encode() for hop in hops)
    forwarded = [b"for=" + hop.encode() for hop in hops]
    expected = (*hops[-31:], "10.1.1.1")
    for chain in (PROXIES.chain("10.1.1.1", [forwarded_for], []), PROXIES.chain("10.1.1.1", [], forwarded)):
        assert chain.hops == expected


@pytest.mark.parametrize(
    "value",
    [
        b", ".join([b"for=10.0.0.1"] * 98),
        b";".join([b"a=b"] * 98) + b", for=10.0.0.1",
        b'for="' + b"\\a" * 97 + b'", for=10.0.0.1',
    ],
)
def test_a_forwarded_field_of_too_many_parts_is_not_read(value: bytes) -> None:
    """Nor is one before it, since its parts count together."""
    assert PROXIES.chain("10.1.1.1", [], [value]).hops == ("10.1.1.1",)
    assert PROXIES.chain("10.1.1.1", [], [value, b"for=10.0.0.2"]).hops == ("10.0.0.2", "10.1.1.1")
    short = value[: len(value) // 2].rpartition(b", for")[0] or b"for=10.0.0.1"
    assert PROXIES.chain("10.1.1.1", [], [short]).client == "10.0.0.1"


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        (None, "unknown"),
        ("", "unknown"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::10.0.0.1", "64:ff9b::a00:1"),
        ("64:ff9b::7f00:1", "64:ff9b::7f00:1"),
        ("64:ff9b:1::c000:201", "64:ff9b:1::c000:201"),
        ("fe80::1%eth0", "fe80::1"),
        ("no:address", "no:address"),
    ],
)
def test_a_peer_s_address_has_one_form(host: str | None, plain: str) -> None:
    assert plain_host(host) == plain


addresses = st.ip_addresses().map(str)


@given(st.lists(addresses, max_size=5), addresses, st.booleans())
def test_the_two_fields_tell_the_same(hops: list[str], peer: str, trusted: bool) -> None:
    """What one field tells is told by the other, and the client is the rightmost that is not trusted."""
    proxies = TrustedProxies(["0.0.0.0/1", "::/1", "8000::/2"] if trusted else ["10.0.0.0/8"])
    peer = plain_host(peer)
    plain = ", ".join(hops).encode()
    elements = b", ".join(b"for=" + node_of(plain_host(hop)) for hop in hops)
    chain = proxies.chain(peer, [plain], [])
    assert chain == proxies.chain(peer, [plain], [elements])
    told = proxies.chain(peer, [], [elements])
    assert (told.hops, told.client) == (chain.hops, chain.client)
    way = [*map(plain_host, hops), peer]
    strangers = [place for place, hop in enumerate(way) if not proxies.trusts(hop)]
    assert list(chain.hops) == way[strangers[-1] if strangers else 0 :]
