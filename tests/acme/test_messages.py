"""What the gateway and its ACME process tell each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from koder_gateway.acme.messages import LONGEST_NAMES, Names, chunks
from koder_gateway.wire.framed_messages import Messages, framed

LONGEST = ".".join(["a" * 62] * 4)


@given(st.integers(0, 3500), st.integers(0, 3500))
def test_all_names_arrive_in_order_and_the_last_message_says_so(added: int, removed: int) -> None:
    names = [f"{number}.example" for number in range(added)]
    gone = [f"{number}.gone.example" for number in range(removed)]
    sent = list(chunks(names, gone))
    assert [name for message in sent for name in message.added] == names
    assert [name for message in sent for name in message.removed] == gone
    assert [message.complete for message in sent] == [False] * (len(sent) - 1) + [True]


def test_no_message_is_longer_than_its_bound() -> None:
    reader = Messages(Names, LONGEST_NAMES)
    sent = [LONGEST] * 5000
    data = b"".join(map(framed, chunks(sent, sent)))
    assert sum(len(message.added) for message in reader.feed(data)) == 5000
