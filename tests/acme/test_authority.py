"""One conversation with a real authority: whose account it is, and what that is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from koder_gateway.acme.authority import Authority
from koder_gateway.acme.faults import OrderError
from koder_gateway.acme.layout import Layout
from koder_gateway.acme.messages import Terms
from koder_gateway.acme.state_folder import StateFolder
from tests.kit.acme_gateways import thorough
from tests.kit.faulty_authority import Fault, FaultyAuthority, problem
from tests.kit.name_server import NameServer
from tests.kit.pebble import Pebble

pytestmark = thorough


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[FaultyAuthority]:
    with (
        NameServer("127.0.0.1") as names,
        Pebble(tmp_path / "pebble", names, tls_port=0, bad_nonces=0) as pebble,
        FaultyAuthority(pebble) as made,
    ):
        yield made


def talk(authority: FaultyAuthority, folder: Path, *contact: str) -> None:
    """Begin a conversation, as a process with these contacts does."""
    terms = Terms(
        folder=str(folder),
        owner="me",
        directory=authority.directory,
        contact=list(contact),
        ca=str(authority.ca),
        challenge="tls-alpn-01",
        eab=None,
        keys="ecdsa",
        profile="",
        rate=50,
        resolver=None,
        check_port=443,
        base_domain="id.example",
        agent="test",
    )
    with closing(Authority(terms, StateFolder(Layout(folder), "me"))):
        pass


def told(authority: FaultyAuthority) -> list[tuple[str, object]]:
    """What was told about accounts: the first part of the path, and the contact."""
    asked = [each for each in authority.requests if each.kind == "account"]
    return [(each.path.split("/")[1], each.payload.get("contact")) for each in asked]


def test_a_contact_that_has_changed_is_told_once(tmp_path: Path, authority: FaultyAuthority) -> None:
    for contact in ("a@example.com", "a@example.com", "b@example.com", "b@example.com"):
        talk(authority, tmp_path / "acme", contact)
    assert told(authority) == [("sign-me-up", ["mailto:a@example.com"]), ("my-account", ["mailto:b@example.com"])]


def test_one_that_is_refused_is_told_again(tmp_path: Path, authority: FaultyAuthority) -> None:
    talk(authority, tmp_path / "acme", "a@example.com")
    authority.faults.append(Fault("account", problem("400 Bad Request", "invalidContact", "it is not yours")))
    with pytest.raises(OrderError) as refused:
        talk(authority, tmp_path / "acme", "b@example.com")
    assert refused.value.fault.text == "it is not yours (invalidContact); correct acme.contact"
    talk(authority, tmp_path / "acme", "b@example.com")
    assert [contact for _, contact in told(authority)][1:] == [["mailto:b@example.com"]] * 2


def test_an_account_that_is_there_already_is_found_and_told(tmp_path: Path, authority: FaultyAuthority) -> None:
    """Its URL was lost, as by a sudden end."""
    folder = tmp_path / "acme"
    talk(authority, folder, "a@example.com")
    storage = StateFolder(Layout(folder), "me")
    account = storage.account(authority.directory)
    assert account is not None
    url, account.url = account.url, ""
    storage.keep_account(authority.directory, account)
    talk(authority, folder, "b@example.com")
    account = storage.account(authority.directory)
    assert account is not None
    assert (account.url, account.contact) == (url, ["b@example.com"])
    assert told(authority)[-1] == ("my-account", ["mailto:b@example.com"])
