"""The tools of the command `koder-gateway`: its command line, and which of them runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from . import certificates_tool, ready_tool
from .check_tool import add_arguments, report_faults
from .check_tool import check as check_tool
from .config import ConfigurationError, load
from .explain_tool import show_explanation
from .limits_tool import show_limits
from .reload_tool import reload
from .version import VERSION
from .version_tool import show_version

_ADMIN = "the gateway's admin port, as in http://127.0.0.1:9100; default: listen.admin_port of the configuration"

# The options that have been given, in the parsed command line.
_GIVEN: Final = "given"


class _StoreOnce(argparse.Action):
    """Stores a value, and refuses a second one: each of the two may be the one that is meant."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given: frozenset[str] = getattr(namespace, _GIVEN, frozenset())
        if self.dest in given:
            raise argparse.ArgumentError(self, "is given twice; leave one out")
        if option_string is not None:
            setattr(namespace, _GIVEN, given | {self.dest})
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """Options are stored once; parsers of tools are of the same class."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)


def use(words: Sequence[str]) -> int:
    """Run one tool; the exit code is 0, 1 after a fault, and 2 for a wrong command line."""
    parser = command_line()
    options = parser.parse_args(words)
    if options.run is show_version:
        return int(show_version(as_json=options.json))
    if options.run in (show_limits, show_explanation, ready_tool.show_readiness) and options.admin:
        if options.config:
            parser.error("--admin and --config exclude each other")
        return int(options.run(None, options))
    if options.run is reload:
        return int(reload(options.pid, options.admin, as_json=options.json, quiet=options.quiet))
    # It imports Twisted, whose reactor only `run` may choose.
    from .checks import CheckUser, check_as_service_user, remaining_faults

    options.view = CheckUser(os.environ)
    if options.run is check_tool:
        if options.config and options.file:
            parser.error("give the file once: --config FILE, or FILE alone")
        options.config = options.config or options.file
    if options.run in (check_tool, certificates_tool.show_certificates):
        options.view = check_as_service_user(options.config)
    try:
        settings = load(options.config, environ=options.view.environ)
    except ConfigurationError as error:
        return report_faults([*error.faults, *remaining_faults(options.config, options.view)], options)
    run: Any = options.run
    return int(run(settings, options))


def command_line() -> argparse.ArgumentParser:
    """The command line, except for the options of `run`, which are the plugin's."""
    parser = _Parser(
        prog="koder-gateway",
        description="The gateway, and the tools for its configuration. `twistd -n koder-gateway` is the same daemon"
        " as `koder-gateway run`.",
    )
    parser.add_argument("--version", action="version", version=f"koder-gateway {VERSION}")
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    tools.add_parser("run", add_help=False, help="run the gateway in the foreground; `run --help` lists its options")
    version = tools.add_parser("version", help="print the version")
    version.add_argument("--json", action="store_true", help="print one JSON object")
    version.set_defaults(run=show_version)
    again = tools.add_parser("reload", help="have the running gateway reload, and say why if it refuses")
    which = again.add_mutually_exclusive_group()
    which.add_argument("--admin", metavar="URL", help="the gateway's admin port, as in http://127.0.0.1:9100")
    which.add_argument(
        "--pid", type=int, metavar="N", help="its process; default: systemd's MAINPID, or the only one"
    )
    again.add_argument("--json", action="store_true", help="print one JSON object")
    again.add_argument("-q", "--quiet", action="store_true", help="print faults only")
    again.set_defaults(run=reload)
    shared = _Parser(add_help=False)
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
    held = tools.add_parser(
        "certificates", parents=[shared], help="show the certificates, and what is wrong with them"
    )
    certificates_tool.add_arguments(held)
    held.set_defaults(run=certificates_tool.show_certificates)
    why = tools.add_parser("explain", parents=[shared], help="say how a request is handled, and why")
    why.add_argument("-X", "--request", dest="method", metavar="METHOD", help="default: GET, with a form POST")
    why.add_argument(
        "-H", "--header", dest="headers", action="append", default=[], metavar="'Name: value'", help="repeatable"
    )
    why.add_argument("-d", "--data", metavar="FORM", help="its form, from which limits may read the client_id")
    why.add_argument("--from", dest="peer", default="192.0.2.1", metavar="ADDRESS", help="the client's address")
    why.add_argument("url", metavar="URL", help="as the client would write it: https://acme.id.koder.dev/v1/users")
    why.add_argument("--admin", metavar="URL", help="ask the running gateway with this admin port; charges nothing")
    why.add_argument("--json", action="store_true", help="print one JSON object")
    why.set_defaults(run=show_explanation)
    limits = tools.add_parser("limits", parents=[shared], help="show who is near a limit of the running gateway")
    limits.add_argument("--admin", metavar="URL", help=_ADMIN)
    limits.add_argument("--json", action="store_true", help="print one JSON object")
    limits.set_defaults(run=show_limits)
    ready = tools.add_parser("ready", parents=[shared], help="whether the running gateway accepts requests")
    ready.add_argument("--admin", metavar="URL", help=_ADMIN)
    ready.add_argument("--json", action="store_true", help="print one JSON object")
    ready.add_argument("-q", "--quiet", action="store_true", help="print faults only")
    ready.set_defaults(run=ready_tool.show_readiness)
    return parser
