"""testssl.sh and sslyze look at a gateway: `make test-tls` runs this, no test collects it.

A gateway of its own serves certificates of a test authority, with an ECDSA key on one port and an RSA key on another.
Anything that testssl.sh finds above LOW, and any weakness that sslyze sees, ends this with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kit.authority import Authority
from tests.kit.gateways import GatewayProcess, configuration

NAME = "acme.id.test"
# A whole run of testssl.sh takes a minute or two; only what hangs meets this.
PATIENCE = 900
HARMLESS = ("OK", "INFO", "LOW", "DEBUG")
# What is a fault of this test's surroundings and not of the gateway.
EXCUSED = {
    "cert_revocation": "the test's authority publishes neither lists nor OCSP",
    "engine_problem": "testssl.sh misses an engine in its own OpenSSL",
    "sessionresumption_ticket": "its client may leave before tickets come (TLS 1.3); sslyze looks at them",
}
SSLYZE_SCANS = (
    *("--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--early_data", "--compression"),
    *("--fallback", "--heartbleed", "--robot", "--openssl_ccs", "--reneg", "--elliptic_curves", "--http_headers"),
    *("--ems", "--certinfo", "--resum"),
)


def run(words: list[str], report: Path, log: Path) -> Any:
    """Run a scanner to its end, or to that of patience; what it has written to `report` as JSON, or None."""
    report.unlink(missing_ok=True)
    with log.open("wb") as out, suppress(OSError, ValueError, subprocess.TimeoutExpired):
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(PATIENCE)
        finally:
            # With all that it has started: testssl.sh is a shell script.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return json.loads(report.read_text())
    return None


def testssl(tool: str, port: int, folder: Path, authority: Path) -> Iterator[str]:
    """Run testssl.sh and give each finding above LOW."""
    report = folder / f"testssl-{port}.json"
    words = [tool, "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1"]
    words += ["--add-ca", str(authority)]
    words += ["--connect-timeout", "10", "--openssl-timeout", "10", "--jsonfile", str(report), f"{NAME}:{port}"]
    log = folder / f"testssl-{port}.log"
    findings = run(words, report, log)
    if findings is None:
        yield f"testssl.sh did not end with a report; see {log}"
        return
    known = {finding["id"] for finding in findings}
    # A run that broke off has found nothing, which is not the same as nothing to find.
    for needed in ("TLS1_3", "heartbleed", "HSTS_time", "cipher_order"):
        if needed not in known:
            yield f"testssl.sh did not get to {needed}; see {log}"
    for finding in findings:
        if finding["severity"] not in HARMLESS and not excused(finding["id"]):
            yield f"testssl.sh: {finding['severity']}: {finding['id']}: {finding['finding']}"


def excused(identity: str) -> bool:
    """Whether a finding is one of the test's certificate; testssl.sh adds `<cert#N>` where there are several."""
    return identity.partition(" <")[0] in EXCUSED


def sslyze(tool: str, port: int, folder: Path, authority: Path) -> Iterator[str]:
    """Run sslyze and give what it finds."""
    report = folder / f"sslyze-{port}.json"
    words = [tool, "--json_out", str(report), "--mozilla_config", "disable", *SSLYZE_SCANS]
    words += ["--certinfo_ca_file", str(authority), f"{NAME}:{port}{{127.0.0.1}}"]
    log = folder / f"sslyze-{port}.log"
    scans = run(words, report, log)
    scan = scans["server_scan_results"][0] if scans else {"scan_status": "no report"}
    if scan["scan_status"] != "COMPLETED":
        yield f"sslyze did not complete: {scan['scan_status']}; see {log}"
        return
    results = {name: attempt["result"] for name, attempt in scan["scan_result"].items()}
    for name, attempt in scan["scan_result"].items():
        if attempt["status"] == "ERROR":
            yield f"sslyze: {name} failed: {attempt['error_reason']}"
    for name, is_fault, what in SSLYZE:
        result = results.get(name)
        if result is None:
            yield f"sslyze: {name} was not looked at"
        elif is_fault(result):
            yield f"sslyze: {name}: {what}"


def accepted(result: dict[str, Any]) -> list[str]:
    return [each["cipher_suite"]["name"] for each in result["accepted_cipher_suites"]]


def weak(result: dict[str, Any]) -> list[str]:
    """Suites that are not forward secret, or do not authenticate what they encrypt."""
    return [name for name in accepted(result) if not ("_ECDHE_" in name and ("_GCM_" in name or "POLY1305" in name))]


def trusted(result: dict[str, Any]) -> bool:
    """Whether each certificate that was shown is trusted by some store: the public ones do not know the test's."""
    return all(
        any(each["was_validation_successful"] for each in deployment["path_validation_results"])
        for deployment in result["certificate_deployments"]
    )


SSLYZE: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    *((f"{old}_cipher_suites", accepted, "is served") for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")),
    ("tls_1_2_cipher_suites", weak, "has weak suites"),
    ("tls_1_2_cipher_suites", lambda result: not accepted(result), "has no suite"),
    ("tls_1_3_cipher_suites", lambda result: not accepted(result), "has no suite"),
    ("tls_1_3_early_data", lambda result: result["supports_early_data"], "can be replayed"),
    ("tls_compression", lambda result: result["supports_compression"], "compresses"),
    ("tls_fallback_scsv", lambda result: not result["supports_fallback_scsv"], "does not see a downgrade"),
    ("heartbleed", lambda result: result["is_vulnerable_to_heartbleed"], "is vulnerable"),
    ("robot", lambda result: not result["robot_result"].startswith("NOT_VULNERABLE"), "is vulnerable"),
    ("openssl_ccs_injection", lambda result: result["is_vulnerable_to_ccs_injection"], "is vulnerable"),
    (
        "session_renegotiation",
        lambda result: (
            result["is_vulnerable_to_client_renegotiation_dos"] or not result["supports_secure_renegotiation"]
        ),
        "lets clients renegotiate, or does so insecurely",
    ),
    (
        "elliptic_curves",
        lambda result: {each["name"] for each in result["supported_curves"]} - {"X25519", "secp256r1", "secp384r1"},
        "has rare groups",
    ),
    (
        "session_resumption",
        lambda result: result["tls_ticket_resumption_result"] != "FULLY_SUPPORTED",
        "does not resume every session by its ticket",
    ),
    ("http_headers", lambda result: not result["strict_transport_security_header"], "has no HSTS"),
    ("tls_extended_master_secret", lambda result: not result["supports_ems_extension"], "has no such secret"),
    ("certificate_info", lambda result: not trusted(result), "shows no chain that the authority has issued"),
]


def main() -> int:
    """Scan and tell; 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    # Debian's package calls it testssl, its makers testssl.sh.
    found_tool = shutil.which("testssl") or shutil.which("testssl.sh") or "testssl.sh"
    parser.add_argument("--testssl", default=found_tool, help="the command of testssl.sh")
    parser.add_argument("--sslyze", default="sslyze", help="the command of sslyze")
    parser.add_argument("--keep", type=Path, help="a folder for the scanners' reports")
    options = parser.parse_args()
    began, found = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        authority = Authority(Path(temporary) / "authority")
        for port, key in served(Path(temporary), authority):
            for scanner, look, tool in (("testssl.sh", testssl, options.testssl), ("sslyze", sslyze, options.sslyze)):
                findings = list(look(tool, port, folder, authority.path))
                found += len(findings)
                print(f"{scanner}, {key}: {len(findings) or 'nothing'} found above LOW", flush=True)
                for finding in findings:
                    print(f"  {finding}", flush=True)
    print(f"{found or 'no'} findings in {time.monotonic() - began:.0f} s")
    return 1 if found else 0


def served(folder: Path, authority: Authority) -> Iterator[tuple[int, str]]:
    """The ports of a gateway, each with the kind of its key, while it serves them."""
    names = ("id.test", "*.id.test")
    authority.issue(*names, days=80, path=folder / "gateway" / "certs" / "default.pem")
    rsa = authority.issue(*names, days=80, path=folder / "rsa.pem", rsa=True).both
    ports = (GatewayProcess.TLS, f"{GatewayProcess.TLS}:privateKey={rsa}:certKey={rsa}")
    with GatewayProcess(folder / "gateway", configuration({"users": "http://127.0.0.1:1"}), ports=ports) as gateway:
        yield from zip(gateway.ports, ("ECDSA key", "RSA key"), strict=True)


if __name__ == "__main__":
    sys.exit(main())
