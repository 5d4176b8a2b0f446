"""Messages on a stream, in whatever pieces they arrive."""

from __future__ import annotations

import io

import msgspec
import pytest

from koder_gateway.wire.framed_messages import HEADER, Messages, first_message, framed


class Note(msgspec.Struct):
    """A message."""

    text: str


ONE, TWO = framed(Note("one")), framed(Note("two"))


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_pieces_do_not_matter(size: int) -> None:
    messages, stream, found = Messages(Note, 100), io.BytesIO(ONE + TWO), []
    while data := stream.read(size):
        found += [note.text for note in messages.feed(data)]
    assert found == ["one", "two"]


def test_the_first_message_leaves_the_rest_in_the_stream() -> None:
    stream = io.BytesIO(ONE + TWO)
    assert first_message(lambda most: stream.read(min(most, 3)), Note, 100) == Note("one")
    assert stream.read() == TWO


@pytest.mark.parametrize("length", range(len(ONE)))
def test_a_stream_that_ends_has_no_first_message(length: int) -> None:
    assert first_message(io.BytesIO(ONE[:length]).read, Note, 100) is None


def test_a_message_that_is_too_long_is_not_read() -> None:
    stream = io.BytesIO((1 << 30).to_bytes(HEADER, "big") + b"x" * 100)
    with pytest.raises(ValueError, match="too long"):
        first_message(stream.read, Note, 100)
    assert len(stream.read()) == 100
