"""The tools of the command `koder-gateway`: `check`, `explain` and `limits`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .check_tool import add_arguments, report_faults
from .check_tool import check as check_tool
from .config import ConfigurationError, load
from .explain_tool import show_explanation
from .limits_tool import show_limits
from .reload_tool import reload
from .version import VERSION

_ADMIN = "the gateway's admin port, as in http://127.0.0.1:9100; default: listen.admin_port of the configuration"


def use(words: Sequence[str]) -> int:
    """Run one tool; the exit code is 0, 1 after a fault, and 2 for a wrong command line."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.run is None:
        print(f"koder-gateway {VERSION}")
        return 0
    if options.run in (show_limits, show_explanation) and options.admin:
        if options.config:
            parser.error("--admin and --config exclude each other")
        return int(options.run(None, options))
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
    why.add_argument("--admin", metavar="URL", help="ask the running gateway with this admin port; charges nothing")
    why.add_argument("--json", action="store_true", help="print one JSON object")
    why.set_defaults(run=show_explanation)
    limits = tools.add_parser("limits", parents=[shared], help="show who is near a limit of the running gateway")
    limits.add_argument("--admin", metavar="URL", help=_ADMIN)
    limits.add_argument("--json", action="store_true", help="print one JSON object")
    limits.set_defaults(run=show_limits)
    return parser
