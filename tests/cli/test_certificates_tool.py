"""`koder-gateway certificates`: each certificate with what it is, and exit code 1 where one cannot serve."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from koder_gateway.acme.layout import Layout, NameRecord
from koder_gateway.cli import main
from koder_gateway.tls.inventory import key_kind
from tests.kit.authority import Authority, Pair
from tests.kit.certificates import certificate_pem

MEMBERS = {
    "name",
    "use",
    "file",
    "key_file",
    "names",
    "subject",
    "issuer",
    "starts",
    "expires",
    "days_left",
    "key",
    "sha256",
    "ordered",
    "order",
    "faults",
}


class Site:
    """A configuration with a folder of certificates, and an authority for them."""

    def __init__(self, folder: Path) -> None:
        self.certs = folder / "certs"
        self.certs.mkdir()
        self._aside = folder / "aside"
        self.authority = Authority(self._aside)
        self.config = folder / "koder-gateway.toml"
        self.config.write_text('[tls]\ncertificates = "certs"\n[state]\ndir = "state"\n')

    def issue(self, name: str, **dates: Any) -> Pair:
        return self.authority.issue(name, path=self.certs / f"{name}.pem", **dates)

    def asked(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["certificates", "--config", str(self.config), *words])
        return code, out.getvalue(), err.getvalue()

    def document(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, said, complained = self.asked("--json", *words)
        assert complained == ""
        document: dict[str, Any] = json.loads(said)
        assert document.keys() == {"ok", "faults", "certificates", "waiting"}
        assert all(each.keys() == MEMBERS for each in document["certificates"])
        return code, document


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_good_ones_are_described(site: Site) -> None:
    site.issue("login.example", days=90.5)
    site.issue("old.example", rsa=True, days=60.5)
    code, document = site.document()
    assert (code, document["ok"], document["faults"]) == (0, True, [])
    first, second = document["certificates"]
    assert (first["name"], first["names"], first["key"]) == ("login.example", ["login.example"], "ECDSA P-256")
    assert first["file"] == first["key_file"] == str(site.certs / "login.example.pem")
    assert "Test CA" in first["issuer"]
    # They began yesterday.
    assert (first["days_left"], second["days_left"]) == (89, 59)
    assert second["key"].startswith("RSA ")
    code, said, complained = site.asked()
    assert (code, complained) == (0, "")
    assert said.splitlines()[0] == "login.example, for clients"
    assert first["sha256"] in said
    assert ", 89 days left" in said


def test_one_that_has_expired_is_a_fault(site: Site) -> None:
    site.issue("good.example")
    site.issue("late.example", start=-30, days=20)
    code, document = site.document()
    assert code == 1
    (fault,) = document["faults"]
    assert fault.startswith(f"{site.certs}/late.example.pem: expired on ")
    assert [each["faults"] for each in document["certificates"]] == [[], [fault]]
    _, said, _ = site.asked()
    assert said.count(" days left\n") == 1
    assert said.count("Z, expired\n") == 1


def test_a_threshold_of_days(site: Site) -> None:
    site.issue("login.example", days=20.5)
    assert site.asked("--days", "19")[0] == 0
    code, said, complained = site.asked("--days", "21", "--quiet")
    assert (code, said) == (1, "")
    assert ", in 19 days, fewer than 21; renew it" in complained


def test_one_that_does_not_match_its_key_is_a_fault_and_described(site: Site) -> None:
    pair, other = site.issue("a.example"), site.issue("b.example")
    pair.both.unlink()
    (site.certs / "a.example.crt").write_bytes(pair.certificate.read_bytes())
    (site.certs / "a.example.key").write_bytes(other.key.read_bytes())
    code, document = site.document()
    assert code == 1
    first = document["certificates"][0]
    assert (first["names"], first["key_file"]) == (["a.example"], str(site.certs / "a.example.key"))
    assert "does not match" in first["faults"][0]


def test_one_that_cannot_be_read_is_a_fault(site: Site) -> None:
    site.issue("good.example")
    (site.certs / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    code, document = site.document()
    broken = next(each for each in document["certificates"] if each["name"] == "broken")
    assert (code, broken["expires"], broken["days_left"], broken["key"]) == (1, None, None, "")
    assert document["faults"] == broken["faults"] != []


def test_an_empty_folder_is_a_fault(site: Site) -> None:
    code, said, complained = site.asked()
    assert (code, said) == (1, "")
    assert complained.startswith(f"{site.certs}: no certificate in it; ")


def test_those_of_an_endpoint_and_of_a_service_are_found(site: Site) -> None:
    site.issue("login.example")
    own = site.authority.issue("own.example", start=-9, days=2)
    shown = site.authority.issue("gateway", days=4)
    site.config.write_text(
        f"""
[listen]
port = ["ssl:443:privateKey={own.key}:certKey={own.certificate}", "ssl:8443"]
[tls]
certificates = "certs"
[services.identity]
url = "https://127.0.0.1:9"
client_cert = "{shown.certificate}"
client_key = "{shown.key}"
"""
    )
    code, document = site.document()
    assert code == 1
    assert [(each["use"], each["names"]) for each in document["certificates"]] == [
        ("clients", ["own.example"]),
        ("clients", ["login.example"]),
        ("service identity", ["gateway"]),
    ]
    assert [fault.partition(": ")[0] for fault in document["faults"]] == [str(own.certificate)]


def test_without_one_nothing_is_made(site: Site) -> None:
    site.config.write_text('[state]\ndir = "state"\n')
    code, said, complained = site.asked()
    assert (code, complained) == (0, "")
    assert said.startswith("no certificate is configured; the gateway makes a self-signed one at its start, ")
    assert not (site.config.parent / "state").exists()


def test_what_a_certificate_says_does_not_control_the_terminal(site: Site) -> None:
    Authority(site.certs / "aside", "Test\x1b[31mCA").issue("login.example", path=site.certs / "login.example.pem")
    code, said, _ = site.asked()
    assert code == 0
    assert "\x1b" not in said
    assert "CA" in said


@pytest.mark.parametrize("days", ["-1", "soon", "1000000", "1.5"])
def test_a_wrong_threshold_is_wrong_usage(site: Site, days: str) -> None:
    with pytest.raises(SystemExit) as ended:
        site.asked("--days", days)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (ec.generate_private_key(ec.SECP256K1()), "ECDSA secp256k1"),
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_of_keys(key: Any, kind: str) -> None:
    from cryptography import x509

    if isinstance(key, ed448.Ed448PrivateKey):
        other = ec.generate_private_key(ec.SECP256R1())
        pem = _signed_by(other, key)
    else:
        pem = certificate_pem(key, "a.example")
    assert key_kind(x509.load_pem_x509_certificate(pem)) == kind


def _signed_by(signer: ec.EllipticCurvePrivateKey, key: ed448.Ed448PrivateKey) -> bytes:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(days=1))
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class OrderingSite(Site):
    """One whose tenants' certificates are ordered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.issue("id.koder.dev", days=90)
        self.layout = Layout.below(folder / "state")
        for each in self.layout.folders:
            each.mkdir(parents=True)
        with self.config.open("a") as file:
            file.write('[acme]\ndirectory = "https://ca.example/directory"\naccept_terms = true\n')
            file.write('[tenants]\nregistry = "tenants.toml"\n')
        (folder / "tenants.toml").write_text(
            '[[tenant]]\nslug = "koder"\ndomains = ["login.koder.example", "shop.koder.example"]\n'
            '[[tenant]]\nslug = "closed"\ndomains = ["closed.example"]\nstatus = "suspended"\n'
        )

    def order(self, name: str, **dates: Any) -> Path:
        """A certificate that was ordered."""
        path = self.layout.certificate(name)
        self.authority.issue(name, path=path, **dates)
        return path

    def record(self, name: str, **members: Any) -> None:
        """What is known of a name."""
        made = NameRecord(name=name, first_seen=1_800_000_000.0, **members)
        self.layout.record(name).write_bytes(msgspec.json.encode(made))


@pytest.fixture
def ordering(tmp_path: Path) -> OrderingSite:
    return OrderingSite(tmp_path)


def test_one_that_is_ordered_has_its_next_renewal(ordering: OrderingSite) -> None:
    path = ordering.order("login.koder.example", days=6)
    ordering.record("login.koder.example", state="issued", next_renewal=1_900_000_000.0)
    code, document = ordering.document()
    assert (code, document["faults"]) == (0, [])
    own, ordered = document["certificates"]
    assert (own["ordered"], own["order"]) == (False, None)
    assert (ordered["name"], ordered["file"], ordered["ordered"]) == ("login.koder.example", str(path), True)
    assert ordered["order"] == {
        "state": "issued",
        "since": "2027-01-15T08:00:00Z",
        "failures": 0,
        "next_try": None,
        "next_renewal": "2030-03-17T17:46:40Z",
        "last_fault": None,
        "advice": None,
    }
    _, said, _ = ordering.asked()
    assert "login.koder.example, for clients, ordered by the gateway\n" in said
    assert "  renewal  2030-03-17T17:46:40Z\n" in said


def test_names_that_wait_say_why(ordering: OrderingSite) -> None:
    ordering.record(
        "login.koder.example",
        state="held",
        attempts=2,
        next_try=1_900_000_000.0,
        last_fault="it leads to 192.0.2.1\x1b[2J",
        advice="correct its DNS",
    )
    code, document = ordering.document()
    assert (code, document["ok"]) == (0, True)
    held, unseen = document["waiting"]
    assert (held["name"], held["order"]["state"], held["order"]["failures"]) == ("login.koder.example", "held", 2)
    assert unseen == {"name": "shop.koder.example", "order": None}
    _, said, _ = ordering.asked()
    assert said.endswith(
        "login.koder.example, without a certificate: held\n"
        "  fault    it leads to 192.0.2.1?[2J\n"
        "  advice   correct its DNS\n"
        "  next     2030-03-17T17:46:40Z, after 2 failures\n"
        "\n"
        "shop.koder.example, without a certificate: the gateway has not looked at it yet\n"
    )


def test_names_with_the_operator_s_certificate_do_not_wait(ordering: OrderingSite) -> None:
    ordering.issue("shop.koder.example", days=90)
    _, document = ordering.document()
    assert [each["name"] for each in document["waiting"]] == ["login.koder.example"]


def test_a_renewal_that_fails_is_a_fault_in_the_authority_s_words(ordering: OrderingSite) -> None:
    path = ordering.order("login.koder.example", days=6)
    failed = {"state": "failed", "last_fault": "too many certificates", "advice": "wait until Monday"}
    ordering.record("login.koder.example", warned=True, **failed)
    code, document = ordering.document()
    assert code == 1
    assert document["faults"] == [f"{path}: should have been renewed: too many certificates; wait until Monday"]
    ordering.order("login.koder.example", start=-10, days=6)
    _, document = ordering.document()
    (fault,) = document["faults"]
    assert fault.startswith(f"{path}: expired on ")
    assert fault.endswith(", and is not renewed: too many certificates; wait until Monday")


def test_one_whose_tenant_is_gone_is_left_to_its_end_without_a_fault(ordering: OrderingSite) -> None:
    for name, days in (("closed.example", 93), ("gone.example", 89)):
        ordering.order(name, start=-90, days=days)
    code, document = ordering.document("--days", "21")
    assert (code, document["faults"]) == (0, [])
    _, text, _ = ordering.asked()
    left = "  renewal  none: no active tenant has this name any more; it is left to its end\n"
    assert text.count(left) == 2
    # One that is to be renewed is not excused by a record that was lost.
    ordering.order("login.koder.example", start=-90, days=93)
    code, document = ordering.document("--days", "21")
    assert (code, len(document["faults"])) == (1, 1)


def test_one_that_cannot_be_used_is_a_fault(ordering: OrderingSite) -> None:
    path = ordering.layout.certificate("login.koder.example")
    path.write_text("rubbish")
    code, document = ordering.document()
    assert code == 1
    assert str(path) in document["faults"][0]


def test_the_days_that_are_asked_for_count_for_those_too(ordering: OrderingSite) -> None:
    path = ordering.order("login.koder.example", days=6)
    code, _, complained = ordering.asked("-q", "--days", "30")
    assert code == 1
    assert complained.startswith(f"{path}: expires on ")


def test_nothing_waits_where_nothing_is_ordered(site: Site) -> None:
    site.issue("login.example", days=90)
    _, document = site.document()
    assert document["waiting"] == []
