"""The tool `koder-gateway reload`: has a running gateway reload, and says what became of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from .admin_client import AdminError, ask
from .ops.console import say
from .ops.control_socket import NoGatewayError, ask_reload, refusal_of, running_gateways


def reload(
    pid: int | None,
    admin: str | None,
    environ: Mapping[str, str] = os.environ,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Reload the gateway of a process, or that of an admin port on this machine; by default that of systemd's
    MAINPID, or the only one. Says of a refusal whether some workers have reloaded all the same. Returns the exit
    code: 0 if it has reloaded, 1 if it has refused, or cannot be asked, 2 if it is not clear which one is meant."""
    try:
        if admin is not None:
            pid = _process_of(admin)
        elif pid is None:
            pid = _only(environ)
        if pid is None:
            return 2
        refused = ask_reload(pid)
    except NoGatewayError as error:
        if as_json:
            print(json.dumps({"ok": False, "partly": False, "refusals": [str(error)]}, indent=2))
        else:
            say(f"koder-gateway reload: {error}")
        return 1
    if as_json:
        lines, partly = refused or ([], False)
        print(json.dumps({"ok": refused is None, "partly": partly, "refusals": lines}, indent=2))
        return 0 if refused is None else 1
    if refused is None:
        if not quiet:
            print("reloaded")
        return 0
    say("\n".join(f"{refusal_of(refused.partly)}: {line}" for line in refused.lines))
    return 1


def _only(environ: Mapping[str, str]) -> int | None:
    """The gateway that is meant when none is named; None, and a line, if several run. Raises NoGatewayError."""
    main = environ.get("MAINPID", "")
    if main.isascii() and main.isdecimal():
        return int(main)
    found = running_gateways()
    if not found:
        raise NoGatewayError("no gateway runs here; name its process with --pid, or its admin port with --admin")
    if len(found) > 1:
        say(f"koder-gateway reload: several gateways run; name one with --pid: {', '.join(map(str, found))}")
        return None
    return found[0]


def _process_of(admin: str) -> int:
    """The process of the gateway with this admin port. Raises NoGatewayError."""
    try:
        return int(ask(admin, "/process")["pid"])
    except AdminError as error:
        raise NoGatewayError(str(error)) from None
    except (ValueError, KeyError, TypeError):
        raise NoGatewayError(f"{admin}: the admin port does not say its process; name it with --pid") from None
