"""TLS as BCP 195 wants it, by real handshakes with a running gateway; HSTS and 421 as its clients see them."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess

import pytest
from OpenSSL import SSL

from tests.kit.authority import Authority
from tests.kit.clients import Client
from tests.kit.gateways import GatewayProcess, configuration
from tests.kit.services import Origin, answer
from tests.kit.waiting import until

TENANTS = """
tenant = [
    { slug = "acme", domains = ["login.acme.test"], cors_origins = ["https://acme.test"] },
    { slug = "koder", domains = ["login.koder.test"] },
    { slug = "closed", status = "suspended" },
]
"""
HSTS = "max-age=31536000"
PATIENCE = 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def gateway(authority, tmp_path_factory):
    """A gateway with a certificate for the base domain and one for each custom domain; a TLS port and a plain one."""
    folder = tmp_path_factory.mktemp("gateway")
    certs = folder / "certs"
    authority.issue("*.id.test", "id.test", path=certs / "base.pem")
    for name in ("login.acme.test", "login.koder.test", "localhost"):
        authority.issue(name, path=certs / f"{name}.pem")
    (folder / "tenants.toml").write_text(TENANTS)

    def play(peer, number):
        while (request := peer.head()) is not None:
            fields = ["Strict-Transport-Security: max-age=7", "strict-transport-security: max-age=8"]
            peer.send(answer(request.get("x-tenant-id").encode(), *fields))

    with Origin(play) as origin:
        sections = {
            "tenants": {"registry": "tenants.toml"},
            "tls": {"default": "base"},
            "cors": {"origins": ["https://app.test"]},
        }
        text = configuration({"users": origin.url}, sections)
        ports = (GatewayProcess.PLAIN, GatewayProcess.TLS)
        (certs / "default.pem").symlink_to(certs / "base.pem")
        with GatewayProcess(folder, text, ports=ports) as process:
            yield process


def connect(gateway, authority, name, **options):
    """A client over TLS for a server name."""
    context = ssl.create_default_context(cafile=str(authority.path))
    context.check_hostname = options.pop("check", True)
    for key, value in options.items():
        setattr(context, key, value)
    plain = socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE)
    try:
        return Client(context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False))
    except BaseException:
        plain.close()
        raise


def ask(client, host, *fields, method="GET", path="/users"):
    client.send("\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode())
    return client.read(method)


# -- the protocol


def shake_hands(gateway, **options):
    """A handshake of OpenSSL's with these settings. Raises SSL.Error."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(options.get("minimum", 0))
    context.set_max_proto_version(options.get("maximum", 0))
    if "suites" in options:
        context.set_cipher_list(options["suites"])
    if "groups" in options:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, options["groups"]) == 1
    plain = socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE)
    plain.settimeout(None)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", PATIENCE, 0))
    connection = SSL.Connection(context, plain)
    connection.set_tlsext_host_name(b"acme.id.test")
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except BaseException:
        plain.close()
        raise
    return connection


ALL = b"ALL:COMPLEMENTOFALL:@SECLEVEL=0"


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_old_versions_get_the_alert(gateway, version):
    with pytest.raises(SSL.Error, match="alert protocol version"):
        shake_hands(gateway, minimum=version, maximum=version, suites=ALL)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_new_versions_are_served(gateway, version):
    connection = shake_hands(gateway, minimum=version, maximum=version)
    assert "GCM" in connection.get_cipher_name()
    connection.sock_shutdown(socket.SHUT_RDWR)
    connection.close()


@pytest.mark.parametrize(
    "suites",
    [
        b"ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA",
        b"ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA",
        b"AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA:AES128-SHA",
        b"DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305",
        b"aNULL:@SECLEVEL=0",
        b"eNULL:@SECLEVEL=0",
        b"ECDHE-ECDSA-AES128-CCM8:ECDHE-ECDSA-CAMELLIA128-SHA256:ECDHE-ECDSA-ARIA128-GCM-SHA256",
    ],
    ids=["CBC", "CBC by RSA", "RSA key exchange", "finite fields", "anonymous", "no encryption", "rare"],
)
def test_weak_suites_are_refused(gateway, suites):
    with pytest.raises(SSL.Error, match="alert handshake failure"):
        shake_hands(gateway, maximum=SSL.TLS1_2_VERSION, suites=suites)


@pytest.mark.parametrize("groups", [b"ffdhe2048:ffdhe3072", b"secp521r1", b"X448"])
def test_other_groups_are_refused(gateway, groups):
    with pytest.raises(SSL.Error, match="alert handshake failure"):
        shake_hands(gateway, minimum=SSL.TLS1_3_VERSION, groups=groups)


def extension(number, data):
    return struct.pack(">HH", number, len(data)) + data


def client_hello(*, version=0x0303, suites=(0xC02B, 0xC02F), compression=b"\0", extensions=()):
    """The record of a ClientHello of TLS 1.2 or older, as one writes it by hand."""
    default = (
        extension(10, struct.pack(">HH", 2, 23)),
        extension(11, b"\1\0"),
        extension(13, struct.pack(">HHH", 4, 0x0403, 0x0804)),
    )
    listed = b"".join((*default, *extensions))
    body = struct.pack(">H", version) + b"\7" * 32 + b"\0"
    body += struct.pack(f">H{len(suites)}H", 2 * len(suites), *suites)
    body += bytes([len(compression)]) + compression + struct.pack(">H", len(listed)) + listed
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + struct.pack(">H", len(message)) + message


def server_says(gateway, hello):
    """The first record of the gateway's answer, and its rest."""
    with socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE) as plain:
        plain.sendall(hello)
        heard = b""
        while len(heard) < 5 or len(heard) < 5 + int.from_bytes(heard[3:5], "big"):
            piece = plain.recv(1 << 16)
            assert piece, heard
            heard += piece
    return heard[0], heard[5 : 5 + int.from_bytes(heard[3:5], "big")]


def server_hello(gateway, hello):
    """What the gateway's ServerHello chooses: suite, compression, and the numbers of its extensions."""
    kind, message = server_says(gateway, hello)
    assert (kind, message[0]) == (22, 2), message
    at = 4 + 2 + 32
    at += 1 + message[at]
    suite, compression, size = struct.unpack_from(">HBH", message, at)
    at, end = at + 5, at + 5 + size
    numbers = []
    while at < end:
        number, length = struct.unpack_from(">HH", message, at)
        numbers.append(number)
        at += 4 + length
    return suite, compression, numbers


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302])
def test_an_old_client_gets_protocol_version_as_bytes(gateway, version):
    assert server_says(gateway, client_hello(version=version)) == (21, b"\2\x46")


@pytest.mark.parametrize(
    "suite", [0x0005, 0x000A, 0x002F, 0x008C, 0x009C, 0x009E, 0x00A8, 0xC00A, 0xC012, 0xC035, 0xCCAA], ids=hex
)
def test_suites_that_no_client_offers_any_more_are_refused(gateway, suite):
    """RC4, 3DES, RSA and PSK key exchange, CBC, finite fields."""
    assert server_says(gateway, client_hello(suites=(suite,))) == (21, b"\2\x28")


def test_nothing_is_compressed(gateway):
    suite, compression, _ = server_hello(gateway, client_hello(compression=b"\1\0"))
    assert (suite, compression) == (0xC02B, 0)
    # RFC 5246 section 7.4.1.2: who cannot do without it is refused.
    kind, alert = server_says(gateway, client_hello(compression=b"\1"))
    assert (kind, alert[:1]) == (21, b"\2")


def test_renegotiation_is_secure_and_refused(gateway):
    offered = client_hello(extensions=(extension(0xFF01, b"\0"), extension(23, b"")))
    _, _, numbers = server_hello(gateway, offered)
    assert 0xFF01 in numbers, "RFC 5746: what it says of renegotiation is bound to the handshake"
    assert 23 in numbers, "RFC 7627: the extended master secret"
    connection = shake_hands(gateway, maximum=SSL.TLS1_2_VERSION)
    connection.renegotiate()
    with pytest.raises(SSL.Error, match="no renegotiation"):
        connection.do_handshake()
    connection.sock_shutdown(socket.SHUT_RDWR)
    connection.close()


def test_no_old_encrypt_then_mac_nor_heartbeat_nor_truncation(gateway):
    offered = client_hello(extensions=(extension(15, b"\1"), extension(4, b"")))
    _, _, numbers = server_hello(gateway, offered)
    assert not {4, 15} & set(numbers)


def test_a_downgrade_is_marked(gateway):
    """RFC 8446 section 4.1.3: a client of TLS 1.3 sees that somebody has made it an older one; RFC 7507: so too."""
    kind, message = server_says(gateway, client_hello())
    assert kind == 22
    assert message[6 + 24 : 6 + 32] == b"DOWNGRD\1"
    assert server_says(gateway, client_hello(suites=(0xC02B, 0x5600))) == (21, b"\2\x56")


def test_no_early_data(gateway):
    """RFC 8446 section 8: what can be replayed is never asked for."""
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.ports[1]}", "-servername", "acme.id.test"]
    request = b"GET /users HTTP/1.1\r\nHost: acme.id.test\r\nConnection: close\r\n\r\n"
    done = subprocess.run([*words, "-ign_eof"], input=request, capture_output=True, timeout=PATIENCE, check=False)
    # Said twice: of the connection, and of each ticket.
    assert b"New Session Ticket arrived" in done.stdout
    assert re.findall(rb"Max Early Data: ([0-9]+)", done.stdout) == [b"0"] * done.stdout.count(b"Max Early Data")
    assert b"Max Early Data: 0" in done.stdout


# -- HSTS


def sts(message):
    return [value.decode() for value in message.values(b"strict-transport-security")]


ANSWERS = {
    "a service's": ("acme.id.test", {}, 200),
    "no tenant": ("nobody.id.test", {}, 404),
    "suspended": ("closed.id.test", {}, 403),
    "no route": ("acme.id.test", {"path": "/elsewhere"}, 404),
    "a foreign host": ("evil.test", {}, 421),
    "a bad path": ("acme.id.test", {"path": "/users/../admin"}, 400),
    "a method that is never forwarded": ("acme.id.test", {"method": "TRACE"}, 405),
    "OPTIONS *": ("acme.id.test", {"method": "OPTIONS", "path": "*"}, 204),
    "HEAD": ("acme.id.test", {"method": "HEAD", "path": "/elsewhere"}, 404),
}
PREFLIGHT = ("Origin: https://app.test", "Access-Control-Request-Method: GET")


@pytest.mark.parametrize("case", ANSWERS, ids=str)
def test_every_answer_over_tls_has_it_once(gateway, authority, case):
    host, how, status = ANSWERS[case]
    with connect(gateway, authority, "acme.id.test") as client:
        message = ask(client, host, **how)
        assert (message.status, sts(message)) == (status, [HSTS])


@pytest.mark.parametrize("case", ANSWERS, ids=str)
def test_no_answer_of_the_gateway_s_in_the_clear_has_it(gateway, case):
    host, how, status = ANSWERS[case]
    with gateway.connect(0) as client:
        message = ask(client, host, **how)
        # Nor a service's own (RFC 6797 section 7.2).
        assert (message.status, sts(message)) == (status, [])
        assert sts(ask(client, "acme.id.test", *PREFLIGHT, method="OPTIONS")) == []


def test_a_preflight_has_it_too(gateway, authority):
    with connect(gateway, authority, "acme.id.test") as client:
        message = ask(client, "acme.id.test", *PREFLIGHT, method="OPTIONS")
        assert (message.status, sts(message)) == (204, [HSTS])
        assert message.get("access-control-allow-origin") == "https://app.test"


def test_what_cannot_be_read_is_answered_with_it(gateway, authority):
    with connect(gateway, authority, "acme.id.test") as client:
        client.send(b"GET / HTTP/1.1\r\nHost: acme.id.test\r\nBad Name: 1\r\n\r\n")
        message = client.read()
        assert (message.status, sts(message)) == (400, [HSTS])


# -- 421


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        ("acme.id.test", "acme.id.test", 200),
        ("acme.id.test", "koder.id.test", 200),
        ("acme.id.test", "login.acme.test", 200),
        ("acme.id.test", "login.koder.test", 200),
        ("login.acme.test", "login.acme.test", 200),
        ("login.acme.test", "LOGIN.acme.test.:443", 200),
        ("login.acme.test", "acme.id.test", 200),
        ("login.acme.test", "koder.id.test", 421),
        ("login.acme.test", "nobody.id.test", 421),
        ("login.acme.test", "login.koder.test", 421),
        ("localhost", "login.koder.test", 200),
        ("localhost", "koder.id.test", 200),
        ("localhost", "localhost", 421),
        (None, "koder.id.test", 200),
        (None, "login.koder.test", 200),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_speaks_for_its_certificate_s_tenants(gateway, authority, name, host, status, version):
    with connect(gateway, authority, name, check=name is not None, maximum_version=version) as client:
        message = ask(client, host)
        assert message.status == status
        if status == 421:
            assert message.code == "misdirected_request"
        # The connection is none the worse for it, whatever it had before.
        own = {None: "acme.id.test", "localhost": "koder.id.test"}.get(name, name)
        assert ask(client, own).status == 200
        assert ask(client, host).status == status


@pytest.mark.parametrize(("tenant", "status"), [("acme", 200), ("koder", 421), ("", 421), ("nobody", 421)])
def test_on_the_base_domain_the_header_names_the_tenant(gateway, authority, tenant, status):
    fields = [f"X-Tenant-ID: {tenant}"] if tenant else []
    with connect(gateway, authority, "login.acme.test") as client:
        assert ask(client, "id.test", *fields).status == status
    with connect(gateway, authority, "id.test") as client:
        assert ask(client, "id.test", *fields).status == {"acme": 200, "koder": 200, "": 400, "nobody": 404}[tenant]


def test_a_resumed_session_speaks_for_what_it_asks_for(gateway, authority):
    context = ssl.create_default_context(cafile=str(authority.path))

    def again(name, session):
        plain = socket.create_connection(("127.0.0.1", gateway.ports[1]), PATIENCE)
        return Client(context.wrap_socket(plain, server_hostname=name, session=session, suppress_ragged_eofs=False))

    with again("login.acme.test", None) as client:
        assert ask(client, "login.acme.test").status == 200
        session = client.socket.session
    with again("login.acme.test", session) as client:
        assert client.socket.session_reused
        assert ask(client, "login.acme.test").status == 200
        assert ask(client, "login.koder.test").status == 421


def test_a_body_behind_a_misdirected_head_is_no_request(gateway, authority):
    inner = b"GET /users HTTP/1.1\r\nHost: login.acme.test\r\n\r\n"
    with connect(gateway, authority, "login.acme.test") as client:
        head = b"POST /users HTTP/1.1\r\nHost: koder.id.test\r\nContent-Length: %d\r\n\r\n" % len(inner)
        client.send(head + inner + inner)
        assert client.read().status == 421
        message = client.read()
        assert (message.status, message.body) == (200, b"acme")


def reload(gateway):
    name = 'koder_gateway_reloads_total{result="ok"}'
    before = gateway.metrics()[name]
    gateway.signal(signal.SIGHUP)
    until(lambda: gateway.metrics()[name] > before, "a reload")


def status_of_a_new_connection(gateway, authority):
    """What a host gets on a new connection that was opened for another tenant's."""
    with connect(gateway, authority, "login.acme.test") as client:
        return ask(client, "koder.id.test").status


def test_a_reload_leaves_no_stale_answer(gateway, authority):
    path = gateway.folder / "tenants.toml"
    certificate = gateway.folder / "certs" / "login.acme.test.pem"
    kept = shutil.copy(certificate, gateway.folder / "kept.pem")
    with connect(gateway, authority, "login.acme.test") as client:
        assert ask(client, "koder.id.test").status == 421
        try:
            path.write_text(
                TENANTS.replace("login.acme.test", "x.test").replace("login.koder.test", "login.acme.test")
            )
            reload(gateway)
            assert ask(client, "koder.id.test").body == b"koder"
            assert ask(client, "acme.id.test").status == 421
        finally:
            path.write_text(TENANTS)
            reload(gateway)
        assert ask(client, "koder.id.test").status == 421
        # Connections speak for the certificate that they were opened with.
        authority.issue("login.acme.test", "login.koder.test", path=certificate)
        reload(gateway)
        assert ask(client, "koder.id.test").status == 421
        until(lambda: status_of_a_new_connection(gateway, authority) == 200, "the renewed certificate")
        assert ask(client, "koder.id.test").status == 421
    shutil.copy(kept, certificate)
    reload(gateway)
    until(lambda: status_of_a_new_connection(gateway, authority) == 421, "the certificate before")
