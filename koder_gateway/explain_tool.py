"""The tool `koder-gateway explain`: how a request is handled, and why, by a configuration or by a running gateway."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from .admin_client import AdminError, ask
from .check_tool import tenants_told
from .config import Settings
from .exchange.explained_request import ExplainedRequest, explained_request
from .ops.console import say


def show_explanation(settings: Settings | None, options: argparse.Namespace) -> int:
    """Print the explanation of a request: by the settings, or without them by the running gateway with the admin port
    `options.admin`. Returns the exit code: 0 if the request is served, 1 if it is refused or cannot be explained."""
    try:
        request = explained_request(options.method, options.url, options.headers, options.peer, options.data)
        document = _live(request, options.admin) if settings is None else _configured(request, settings)
        text = json.dumps(document, indent=2) if options.json else "\n".join(_lines(document))
        served = bool(document["served"])
    except (AdminError, ValueError) as error:
        say(_printable(f"koder-gateway explain: {error}"))
        return 1
    except (KeyError, TypeError, AttributeError):
        say(f"koder-gateway explain: {options.admin}: the gateway there has another version; use its own tools")
        return 1
    print(text)
    return 0 if served else 1


def _live(request: ExplainedRequest, admin: str) -> dict[str, Any]:
    words = [("method", request.method), ("url", request.url), ("from", request.peer)]
    words += [("header", header) for header in request.headers]
    words += [] if request.data is None else [("data", request.data)]
    return ask(admin, f"/explain?{urlencode(words, errors='surrogateescape')}")


def _configured(request: ExplainedRequest, settings: Settings) -> dict[str, Any]:
    from .service.served_certificate import certificate_reason, certificates_on_disk
    from .tree.compose import make_policy
    from .tree.explaining import explained

    policy = make_policy(settings, settings.registered)
    document = explained(request, settings, policy, 0.0)
    document["server_certificate"] = None
    if request.secure:
        names = certificates_on_disk(settings, time.time())
        document["server_certificate"] = certificate_reason(request.host, names, settings, policy.registry)
    if isinstance(settings.tenants.registry, str):
        document["tenant"]["unknown"] = f"{tenants_told(settings)}: whether this tenant exists is not known"
    return document


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The explanation for a person. What a client or a gateway says may not control the terminal."""
    for line in _plain_lines(document):
        yield _printable(line)


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _plain_lines(document: Mapping[str, Any]) -> Iterator[str]:
    request, answer = document["request"], document["answer"]
    yield f"request  {request['method']} {request['url']} from {request['from']}"
    if document["client"] != request["from"]:
        yield f"client   {document['client']}"
    yield f"tenant   {document['tenant']['reason']}"
    if "unknown" in document["tenant"]:
        yield f"         {document['tenant']['unknown']}"
    if document.get("server_certificate"):
        yield f"tls      {document['server_certificate']}"
    if document["certificate"]:
        yield f"cert     {document['certificate']}"
    yield f"cors     {document['cors']}"
    limits = [_limit(limit) for limit in document["limits"]] or ["none applies"]
    for number, limit in enumerate(limits):
        yield f"{'limits' if number == 0 else '':<8} {limit}"
    if document["store"] not in (None, "memory:"):
        yield f"         what is left is what this gateway process last knew: {document['store']} was not asked"
    yield f"route    {document['route']}"
    if document["access"]:
        yield f"access   {document['access']}"
    if document["context"]:
        yield f"context  {document['context']}"
    service = document["service"]
    yield f"service  {service['name']} at {service['address']}" if service else "service  none: the gateway answers"
    yield f"answer   {_answer(document)}"
    for name, value in answer["fields"]:
        yield f"         {name}: {value}"
    for number, line in enumerate((answer["body"] or "").splitlines()):
        yield f"{'body' if number == 0 else '':<8} {line}"


def _limit(limit: Mapping[str, Any]) -> str:
    left = limit["left"]
    return limit["rule"] if left is None else f"{limit['rule']}; {left} left"


def _answer(document: Mapping[str, Any]) -> str:
    answer = document["answer"]
    if document["outcome"] == "forwarded":
        return "forwarded; the service answers"
    if document["served"]:
        return "204, by the gateway" + (" (a CORS preflight)" if document["outcome"] == "preflight" else "")
    if answer["status"] is None:
        return f"none ({answer['code']}): {answer['detail']}"
    return f"{answer['status']} {answer['code']}: {answer['detail']}"
