"""The targets of fuzzing: functions of bytes that raise AssertionError, or anything else, where something is wrong.

Every target that is here has a folder in `corpus`, whose files are inputs as they stand on the wire or on the disk.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import hpack
from OpenSSL import SSL

from koder_gateway.config import ConfigurationError, ListContext
from koder_gateway.config.document import parse_document
from koder_gateway.config.kinds import Where
from koder_gateway.config.loading import read_settings
from koder_gateway.tenants.tenant_list import parse_tenant_list
from koder_gateway.tls.client_hello import ClientHello, plain_name
from koder_gateway.wire.hpack import Decoder, OversizedBlock
from koder_gateway.wire.http2_frames import Http2Error
from koder_gateway.wire.proxy_header import ProxyHeader, ProxyHeaderError, read_proxy_header
from tests.fuzz.differences import check_requests, check_responses
from tests.fuzz.names import CORPUS
from tests.fuzz.paths import check_http2, check_request_path, check_response_path, pieces_of

Target = Callable[[bytes], None]

_LINE = re.compile(r"[^\n\r\x00-\x1f\x7f]+: \S[^\n]*")
_BASE = "id.koder.dev"
# In a folder that is not there: paths that are made up lead to nothing.
_WHERE = Where(CORPUS / "none", Path("/var/lib/koder-gateway"))


def requests(data: bytes) -> None:
    """Heads and bodies of requests, beside llhttp and h11."""
    check_requests(data)


def responses(data: bytes) -> None:
    """Heads and bodies of responses, beside llhttp and h11."""
    check_responses(data, to_head=False)
    check_responses(data, to_head=True)


# -- HPACK


def hpack_blocks(data: bytes) -> None:
    """Field blocks of one connection, each behind its length in two bytes, beside hpack's decoder."""
    ours = Decoder(1 << 24, 1 << 16)
    theirs = hpack.Decoder(max_header_list_size=1 << 30)
    while len(data) > 2:
        size = 2 + int.from_bytes(data[:2], "big") % 2048
        block, data = data[2:size], data[size:]
        try:
            fields = ours.decode(block)
        except (Http2Error, OversizedBlock):
            return
        assert fields is not None
        try:
            others = theirs.decode(block, raw=True)
        except hpack.HPACKError as error:
            raise AssertionError(f"hpack refuses {block!r}: {error!r}") from None
        assert [(bytes(name), bytes(value)) for name, value in others] == [each[:2] for each in fields]


# -- the PROXY header


def proxy_header(data: bytes) -> None:
    """However much of it has come, what is said of the header is never taken back."""
    whole = _proxy_header(data)
    said: ProxyHeader | str | None = None
    for size in range(1, min(len(data), 600) + 1):
        now = _proxy_header(data[:size])
        if said is None:
            said = now
        elif isinstance(said, ProxyHeader):
            assert now == said, f"{size} bytes: {now}, before {said}"
        else:
            assert isinstance(now, str), f"{size} bytes: {now}, before {said}"
        if isinstance(now, ProxyHeader):
            assert now.size <= size
    if said is not None:
        assert type(whole) is type(said)
    if isinstance(whole, ProxyHeader):
        for end in (whole.source, whole.destination):
            assert end is None or (str(ip_address(end.host)) == end.host and 0 <= end.port <= 65535)


def _proxy_header(data: bytes) -> ProxyHeader | str | None:
    try:
        return read_proxy_header(data)
    except ProxyHeaderError as error:
        reason = str(error)
    assert reason.isprintable()
    return reason


# -- the TLS hello

_context = SSL.Context(SSL.TLS_SERVER_METHOD)
_asked: list[bytes | None] = []
_context.set_tlsext_servername_callback(lambda connection: _asked.append(connection.get_servername()))


def client_hello(data: bytes) -> None:
    """The name is that which OpenSSL reads, and does not depend on how the bytes are cut."""
    if not data:
        return
    name = _hello_name([data])
    assert name == _hello_name(list(pieces_of(data))), "it depends on the pieces"
    _asked.clear()
    connection = SSL.Connection(_context, None)
    connection.set_accept_state()
    connection.bio_write(data[: 1 << 14])
    with suppress(SSL.Error):
        connection.do_handshake()
    if _asked:
        assert name is not None, f"OpenSSL reads {_asked[0]!r}"
        assert plain_name(name) == plain_name(_asked[0])


def _hello_name(pieces: list[bytes]) -> bytes | None:
    hello = ClientHello()
    try:
        for piece in pieces:
            name = hello.feed(piece)
            if name is not None:
                return name
    except (ValueError, IndexError):
        pass
    return None


# -- what operators and the Admin service write


def registry(data: bytes) -> None:
    """A list of tenants, or one line that says what is wrong; what is taken, JSON's other readers take as well."""
    try:
        found = parse_tenant_list(data, "LIST", ListContext(_BASE))
    except ConfigurationError as error:
        _check_lines(error.faults)
        return
    _check_lines(found.faults)
    if found.faults:
        return
    try:
        # Bytes that are no UTF-8 are of no harm in members that nobody reads.
        document = json.loads(data.decode("utf-8-sig", "replace"), parse_int=str)
    except RecursionError:
        return
    except ValueError:
        # Nor is anything else there: of members beside the list only the brackets are read.
        assert data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
        return
    entries = document.get("tenants") if isinstance(document, dict) else document
    listed = sorted(entry["slug"] for entry in entries)
    assert sorted(tenant.slug for tenant in found.registry) == listed


def configuration(data: bytes) -> None:
    """Settings, or a line for each fault."""
    try:
        read_settings(parse_document(data, "FILE"), "FILE", _WHERE)
    except ConfigurationError as error:
        faults = error.faults
    else:
        return
    assert faults
    _check_lines(faults)


def _check_lines(faults: Iterable[str]) -> None:
    for fault in faults:
        assert _LINE.fullmatch(fault), repr(fault)


TARGETS: dict[str, Target] = {
    "requests": requests,
    "responses": responses,
    "request_path": check_request_path,
    "response_path": check_response_path,
    "http2": check_http2,
    "hpack": hpack_blocks,
    "proxy_header": proxy_header,
    "client_hello": client_hello,
    "registry": registry,
    "configuration": configuration,
}
