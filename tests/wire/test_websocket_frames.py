"""Where frames end, however they are cut into reads."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.wire.websocket_frames import GOING_AWAY, FrameBoundaries, close_frame


def frame(size: int, *, masked: bool = False, first: int = 0x82) -> bytes:
    """A frame of that many bytes of payload."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mask | size))
    elif size < 1 << 16:
        head = bytes((first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + b"\x7e" * size


FRAMES = st.lists(
    st.builds(frame, st.sampled_from([0, 1, 2, 125, 126, 127, 300, 65535, 65536]), masked=st.booleans())
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 400_000)))
def test_ends_are_found_however_the_bytes_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    ends = [0]
    for each in frames:
        ends.append(ends[-1] + len(each))
    follower = FrameBoundaries()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(edges):
        found = follower.follow(data[start:end])
        within = [each - start for each in ends if start < each <= end]
        assert found == (within[-1] if within else -1)
        assert follower.between is (end in ends)


TINY = st.lists(
    st.builds(
        lambda size, masked, times: frame(size, masked=masked) * times,
        st.sampled_from([0, 1, 2, 7]),
        st.booleans(),
        st.sampled_from([1, 2, 3, 17, 18, 19, 146, 1300]),
    ),
    max_size=4,
)


@given(runs=TINY, cuts=st.lists(st.integers(0, 9_000), max_size=6))
def test_runs_of_equal_frames_are_followed_too(runs: list[bytes], cuts: list[int]) -> None:
    data = b"".join(runs)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    fast, slow = FrameBoundaries(), FrameBoundaries()
    for start, end in itertools.pairwise(edges):
        found = -1
        # One byte at a time there are no runs.
        for place in range(start, end):
            if slow.follow(data[place : place + 1]) == 1:
                found = place + 1 - start
        assert fast.follow(data[start:end]) == found
        assert fast.between is slow.between


def test_equal_frames_are_followed_however_many_come() -> None:
    follower = FrameBoundaries()
    for tiny in (frame(0), frame(0, masked=True), frame(3)):
        data = tiny * (60_000 // len(tiny))
        for _ in range(100):
            assert follower.follow(data) == len(data)
            assert follower.between


def test_small_messages_of_any_size_are_followed_however_many_come() -> None:
    follower = FrameBoundaries()
    data = b"".join(frame(size) for size in range(30, 70)) * 30
    for _ in range(100):
        assert follower.follow(data) == len(data)
    assert follower.between


def test_a_burst_of_tiny_frames_is_followed_and_a_flood_is_not() -> None:
    follower = FrameBoundaries()
    pair = frame(0) + frame(1)
    assert follower.follow(pair * 500) == 500 * len(pair)
    assert follower.between
    for _ in range(20):
        last = follower.follow(pair * 500)
    assert follower.lost
    assert last == -1
    # What is not followed is never taken for the end of a frame again.
    assert follower.follow(frame(5)) == -1
    assert follower.follow(b"") == -1
    assert not follower.between


def test_the_allowance_comes_back_with_larger_frames() -> None:
    follower = FrameBoundaries()
    pair = frame(0) + frame(1)
    for _ in range(20):
        follower.follow(pair * 400)
        follower.follow(frame(30_000))
    assert follower.between


def test_each_byte_by_itself() -> None:
    data = frame(300, masked=True) + frame(0) + frame(126)
    follower = FrameBoundaries()
    ends = [place for place in range(len(data)) if follower.follow(data[place : place + 1]) == 1]
    assert ends == [307, 309, len(data) - 1]


def test_the_close_frame_is_that_of_the_specification() -> None:
    assert close_frame(GOING_AWAY) == b"\x88\x02\x03\xe9"
