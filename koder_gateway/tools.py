"""The tools of the command `koder-gateway`: `check`, `explain` and `limits`."""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .check_tool import add_arguments, report_faults, tenants_told
from .check_tool import check as check_tool
from .config import ConfigurationError, Settings, load
from .config.faults import shown
from .errors import Refusal
from .exchange.explanation import Explanation, explain
from .limits_tool import show_limits
from .ops.console import say
from .policy.certificates import TlsInfo
from .policy.clients import plain_host
from .reload_tool import reload
from .version import VERSION
from .wire.request_head import RequestHead
from .wire.request_syntax import oversized
from .wire.unread_head import known_of

_ADMIN = "the gateway's admin port, as in http://127.0.0.1:9100; default: listen.admin_port of the configuration"


def use(words: Sequence[str]) -> int:
    """Run one tool; the exit code is 0, 1 after a fault, and 2 for a wrong command line."""
    options = _parser().parse_args(words)
    if options.run is None:
        print(f"koder-gateway {VERSION}")
        return 0
    if options.run is show_limits and options.admin:
        return int(show_limits(None, options))
    if options.run is reload:
        return int(reload(options.pid, options.admin))
    # It imports Twisted, whose reactor only `run` may choose.
    from .checks import CheckUser, check_as_service_user, remaining_faults

    options.view = CheckUser(os.environ)
    if options.run is check_tool:
        options.config = options.config or options.file
        options.view = check_as_service_user(options.config)
    try:
        settings = load(options.config, environ=options.view.environ)
    except ConfigurationError as error:
        return report_faults([*error.faults, *remaining_faults(options.config, options.view)], options)
    run: Any = options.run
    return int(run(settings, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="koder-gateway",
        description="The gateway, and the tools for its configuration. `twistd -n koder-gateway` is the same daemon"
        " as `koder-gateway run`.",
    )
    parser.add_argument("--version", action="version", version=f"koder-gateway {VERSION}")
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    tools.add_parser("run", add_help=False, help="run the gateway in the foreground; `run --help` lists its options")
    tools.add_parser("version", help="print the version").set_defaults(run=None)
    again = tools.add_parser("reload", help="have the running gateway reload, and say why if it refuses")
    which = again.add_mutually_exclusive_group()
    which.add_argument("--admin", metavar="URL", help="the gateway's admin port, as in http://127.0.0.1:9100")
    which.add_argument(
        "--pid", type=int, metavar="N", help="its process; default: systemd's MAINPID, or the only one"
    )
    again.set_defaults(run=reload)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config",
        "-c",
        type=Path,
        metavar="FILE",
        help="configuration file; default: /etc/koder-gateway/koder-gateway.toml where it exists",
    )
    check = tools.add_parser("check", parents=[shared], help="validate everything and print every fault")
    add_arguments(check)
    check.set_defaults(run=check_tool)
    why = tools.add_parser("explain", parents=[shared], help="say how a request is handled, and why")
    why.add_argument("-X", "--request", dest="method", default="GET", metavar="METHOD")
    why.add_argument(
        "-H", "--header", dest="headers", action="append", default=[], metavar="'Name: value'", help="repeatable"
    )
    why.add_argument("--from", dest="peer", default="192.0.2.1", metavar="ADDRESS", help="the client's address")
    why.add_argument("url", metavar="URL", help="as the client would write it: https://acme.id.koder.dev/v1/users")
    why.set_defaults(run=_explain)
    limits = tools.add_parser("limits", parents=[shared], help="show who is near a limit of the running gateway")
    limits.add_argument("--admin", metavar="URL", help=_ADMIN)
    limits.add_argument("--json", action="store_true", help="print one JSON object")
    limits.set_defaults(run=show_limits)
    return parser


def _explain(settings: Settings, options: argparse.Namespace) -> int:
    from .tree.bounds import client_limits
    from .tree.compose import make_policy, make_reader

    raw, secure, fault = _raw_request(options)
    if fault is not None:
        say(f"koder-gateway explain: {fault}")
        return 1
    policy = make_policy(settings, settings.registered)
    head = make_reader(settings).read(raw)
    if len(raw) > settings.requests.max_head:
        # As in the channel: of a head over the limit only its Host and Origin are read.
        unread = RequestHead(b"", b"", head.minor, [])
        unread.host, unread.origin, unread.page = known_of(raw[: settings.requests.max_head])
        unread.refusal = oversized(raw, client_limits(settings).max_line)
        head = unread
    # As over a correct connection: opened for that host, with the certificate that it may require.
    secured = TlsInfo(client=b"some", authorities=policy.client_auth.digest) if secure else None
    found = explain(policy, head, plain_host(options.peer), secured, settings.tenants.base_domain, 0.0)
    _print(settings, options, found)
    return 0


def _raw_request(options: argparse.Namespace) -> tuple[bytes, bool, str | None]:
    """The head that the request would have on the wire, and whether over TLS; or what is wrong with the arguments."""
    url = shown(options.url)
    wanted = f'{url} is not a URL; write it as in "https://acme.id.koder.dev/v1/users"'
    try:
        parts = urlsplit(options.url)
    except ValueError:
        return b"", False, wanted
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return b"", False, wanted
    if "@" in parts.netloc:
        return b"", False, f"{url} has a user in it, which no client sends as part of a URL; leave it out"
    try:
        ipaddress.ip_address(options.peer)
    except ValueError:
        return b"", False, f'--from "{options.peer}" is not an address; write one as in "203.0.113.7"'
    # The target exactly as typed: urlsplit must not normalise what the gateway would examine.
    target = options.url.partition("://")[2][len(parts.netloc) :] or "/"
    if not target.startswith("/"):
        target = "/" + target
    lines = [f"{options.method} {target} HTTP/1.1"]
    if not any(header.lower().startswith("host:") for header in options.headers):
        lines.append(f"Host: {parts.netloc}")
    lines += options.headers
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"), parts.scheme == "https", None


def _print(settings: Settings, options: argparse.Namespace, found: Explanation) -> None:
    outcome = found.outcome
    if isinstance(outcome, Refusal):
        answer = f"{outcome.status} {outcome.code}: {outcome.detail}"
        service = "none: the gateway answers"
    elif outcome in ("preflight", "options"):
        answer = "204, by the gateway" + (" (a CORS preflight)" if outcome == "preflight" else "")
        service = "none: the gateway answers"
    else:
        urls = ", ".join(settings.services[outcome].urls)
        answer = "forwarded; the service answers"
        service = f"{outcome} at {urls}"
    print(f"request  {options.method} {options.url} from {options.peer}")
    if found.client != options.peer:
        print(f"client   {found.client}")
    print(f"tenant   {found.tenant}")
    if isinstance(settings.tenants.registry, str):
        print(f"         {tenants_told(settings)}: whether this tenant exists is not known")
    if found.certificate:
        print(f"cert     {found.certificate}")
    print(f"cors     {found.cors}")
    for number, limit in enumerate(found.limits or ("none applies",)):
        print(f"{'limits' if number == 0 else '':<8} {limit}")
    print(f"route    {found.route}")
    if found.access:
        print(f"access   {found.access}")
    print(f"service  {service}")
    print(f"answer   {answer}")
    for line in found.fields.decode("latin-1").splitlines():
        print(f"         {line}")
