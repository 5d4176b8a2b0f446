"""Why a request is treated as it is: the policies' own answers, each with its reason, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Refusal
from ..policy.certificates import NONE, OPTIONAL, REQUIRED, TlsInfo
from ..policy.clients import NOWHERE
from ..policy.decision import Policy, charges_refusal
from ..policy.limit_keys import address_key, address_text, counted_value
from ..policy.limit_rules import CLIENT_ID, HEADER, WINDOWS, LimitRule
from ..policy.origins import wildcard_of
from ..policy.routing import Route
from ..policy.tenants import bare_host, normal_domain
from ..wire.refusal_writer import OWN_FIELDS
from ..wire.request_head import RequestHead
from .admission import admit
from .context import SAFE, RequestContext
from .limit_step import client_of
from .opening import SingleHead, open_exchange
from .refusing import refusal_response
from .states import Exchange

# In a body that is explained, unless the request has one.
_NO_ID = b"0" * 32


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of one request. `outcome` is a Refusal, "preflight", "options" or the service's name; `client` the
    address that log, limits and services have for it. `certificate` is what its host wants of the client's, "" where
    no host wants any. `access` says who may use the path, "" if everybody may; `context` what the service learns of a
    signed one, "" for none. `limits` are the rules in words, `limit_names` their names. `fields` are what the
    response has of the gateway's, without its request id, and `body` is that of a refusal.
    """

    client: str
    slug: str
    tenant: str
    certificate: str
    cors: str
    limits: tuple[str, ...]
    route: str
    access: str
    context: str
    outcome: Refusal | str
    fields: bytes
    body: bytes
    limit_names: tuple[str, ...]


def explain(
    policy: Policy,
    head: RequestHead,
    peer: str,
    secured: TlsInfo | None,
    base_domain: str,
    now: float,
    body: bytes = b"",
) -> Explanation:
    """Admit a request as the gateway would, and ask the policies for their reasons. It charges the policy's limits
    like a request: use one of your own, or with a `LimitReading`.

    `peer` is the address that the request comes from, `secured` what TLS has established with it, None without TLS;
    `now` is monotonic seconds, and `body` the request's.
    """
    exchange = open_exchange(SingleHead(peer, secured), head, head.refusal, None, policy, now)
    context = exchange.context
    route = policy.routes.match(head.path)
    exchange.request_id = head.request_id or _NO_ID
    outcome = _outcome(exchange, body)
    # Without the first line, the request id: it is a new one each time.
    fields, answer = exchange.fields.partition(b"\r\n")[2], b""
    if isinstance(outcome, Refusal):
        own, answer = refusal_response(exchange, outcome)
        fields = own + OWN_FIELDS + fields
    rules = list(_rules(policy, exchange, outcome))
    return Explanation(
        client=context.address.decode("ascii"),
        slug=exchange.tenant.decode("ascii"),
        tenant=_tenant(policy, head, context, base_domain, outcome),
        certificate=_client(policy, head, secured),
        cors=_cors(policy, head, context),
        limits=tuple(_rule(rule, exchange, body) + note for rule, note in rules),
        limit_names=tuple(rule.name for rule, _ in rules),
        route=f"{route.path.decode()} -> {route.service}" if route else "none: no route matches this path",
        access="" if route is None else "; ".join(_access(policy, route, head, context)),
        context=_context(context, outcome),
        outcome=outcome,
        fields=fields,
        body=b"" if head.method == b"HEAD" else answer,
    )


def _outcome(exchange: Exchange, body: bytes) -> Refusal | str:
    outcome = admit(exchange, body)
    if isinstance(outcome, Refusal):
        return outcome
    return outcome.service if isinstance(outcome, Route) else outcome.name


def _tenant(
    policy: Policy, head: RequestHead, context: RequestContext, base_domain: str, outcome: Refusal | str
) -> str:
    tenant, refusal = context.owner, context.tenant
    header = policy.tenant_header.decode("ascii")
    if isinstance(refusal, Refusal) and (tenant is None or outcome is refusal):
        return f"none: {refusal.status} {refusal.code}: {refusal.detail}"
    assert tenant is not None, "without a refusal there is a tenant"
    host, base = bare_host(head.host), normal_domain(base_domain)
    if policy.registry.at(host) is not None:
        reason = f"{host.decode()} is its custom domain"
    elif host.endswith(b"." + base):
        reason = f"{host.decode()} is its name under {base.decode()}"
    elif any(head.tenants):
        reason = f"{host.decode()} names no tenant and {header} does"
    else:
        reason = f"{host.decode()} names no tenant, nor does {header}, and tenants.default does"
    if policy.registry.is_open:
        reason += "; there is no registry, so every well-formed slug is a tenant"
    if tenant is context.suspended:
        reason += "; this path is one of tenants.suspended_allow"
    return f"{tenant.slug} ({tenant.status}): {reason}"


_WANTED = {
    NONE: "this host asks for no client certificate",
    OPTIONAL: "this host asks for a client certificate, and accepts requests without",
    REQUIRED: "this host requires a client certificate",
}


def _client(policy: Policy, head: RequestHead, secured: TlsInfo | None) -> str:
    if not policy.client_auth:
        return ""
    assumed = "; explained as if there were one" if secured is not None and secured.client else ""
    mode = policy.client_auth.mode(bare_host(head.host))
    return _WANTED[mode] + (assumed if mode == REQUIRED else "")


def _cors(policy: Policy, head: RequestHead, context: RequestContext) -> str:
    origin = head.origin
    if origin is None:
        vary = context.cors.removesuffix(b"\r\n").decode("ascii")
        return "no Origin header: no CORS headers" + (f", but {vary}" if vary else "")
    text = origin.decode("latin-1")
    if context.readable:
        return f"{text} is {_listed(policy, context, origin)}: its pages may read the response"
    route = policy.routes.match(head.path)
    public = route is not None and route.public
    if context.foreign and not (public and head.method in SAFE):
        return f"{text} is another tenant's: its pages may not read the response, nor change anything"
    if route is not None and public:
        return (
            f"{text} is not a configured origin, and {route.path.decode()} is public: its pages may read the response"
        )
    if context.owner is not None and origin in context.owner.origins:
        return f"{text} is one of the tenant's cors_origins, which do not count on the base domain: no CORS headers"
    return f"{text} is not a configured origin (compared byte for byte): no CORS headers, otherwise served as usual"


def _listed(policy: Policy, context: RequestContext, origin: bytes) -> str:
    """Where an origin is listed whose pages may read the response."""
    owner, wildcard = context.owner, wildcard_of(origin)[0]
    if origin in policy.cors.origins:
        return "one of cors.origins"
    if owner is not None and origin in owner.origins:
        return "one of the tenant's cors_origins"
    where = "cors.origins" if wildcard in policy.cors.wildcards else "the tenant's cors_origins"
    return f"covered by {wildcard.decode()} of {where}"


def _access(policy: Policy, route: Route, head: RequestHead, context: RequestContext) -> Iterator[str]:
    client = context.address.decode("ascii")
    for closed in policy.routes.closed_routes(route, head.path, head.plain):
        path, networks = closed.path.decode(), ", ".join(closed.allow.cidrs)
        way = "" if closed is route else ", which a service may read in this path,"
        if context.comes_from(closed.allow):
            yield f"{path}{way} is open to {networks}: {client} may use it"
        elif closed.allow.covers(client) and policy.proxies.trusts(client):
            yield (
                f"{path}{way} is open to {networks}, and {client} is a proxy of listen.trusted_proxies, whose headers"
                " name no client, or not the same one: have it send X-Forwarded-For"
            )
        elif closed.allow.covers(client):
            yield (
                f"{path}{way} is open to {networks}, and {client} may be a proxy that serves others: its headers name"
                " another client; add it to listen.trusted_proxies, with headers that agree"
            )
        else:
            yield f"{path}{way} is open to {networks} only: to let {client} in, add its network to the route's allow"


def _context(context: RequestContext, outcome: Refusal | str) -> str:
    if context.signed is None or context.owner is None or isinstance(outcome, Refusal):
        return ""
    client = context.address.decode("ascii") if context.certain else NOWHERE
    host = bare_host(context.host).decode("ascii", "replace")
    return f"X-Koder-Context says, signed: tenant {context.owner.slug}, client {client}, host {host}"


def _rules(policy: Policy, exchange: Exchange, outcome: Refusal | str) -> Iterator[tuple[LimitRule, str]]:
    """The rules that apply, each with what has to be said of it besides."""
    limits = exchange.context.limits
    plan = policy.limiter.plan(exchange.head.method, exchange.head.path)
    if plan is not None:
        own = policy.limiter.for_tenant(plan, exchange.tenant, limits).rules if limits else plan.rules
        for mine, rule in zip(own, plan.rules, strict=True):
            yield mine, "" if mine == rule else "; the tenant's own figures"
    if isinstance(outcome, Refusal) and charges_refusal(outcome):
        for rule in policy.limiter.refusal_rules:
            yield rule, ""


def _rule(rule: LimitRule, exchange: Exchange, body: bytes) -> str:
    counted = " and ".join(_counted(part, rule, exchange, body) for part in rule.key) or "all clients together"
    if rule.in_flight:
        note = "" if rule.mode == "enforce" else "; shadow: only counted"
        return f"{rule.name}: {rule.in_flight} in flight, for {counted}{note}"
    note = "" if rule.mode == "enforce" else "; shadow: only counted"
    if rule.charge == "failures":
        note += f"; only failures ({', '.join(map(str, sorted(rule.statuses)))}) are charged"
    elif rule.charge == "refusals":
        note += "; only refusals are charged, and past the limit they get no response"
    window = {seconds: unit for unit, seconds in WINDOWS.items()}[rule.window]
    return f"{rule.name}: {rule.quota}/{window}, burst {rule.burst}, for {counted}{note}"


def _counted(part: str, rule: LimitRule, exchange: Exchange, body: bytes) -> str:
    """One part of the key that a rule counts a request under."""
    context, head = exchange.context, exchange.head
    if part == "tenant":
        return f"tenant {'?' if context.owner is None else context.owner.slug}"
    if part == "ip":
        address = context.address.decode("ascii")
        network = address_text(address_key(address, rule.ipv6_prefix), rule.ipv6_prefix)
        return f"ip {network if '/' in network else address}"
    if part == "route":
        chosen = context.policy.routes.match(head.path)
        return f"route {chosen.path.decode() if chosen else 'none'}"
    if part == CLIENT_ID:
        client = client_of(head, body)
        return f"client_id {client.decode()}" if client else "all requests that name no one client_id"
    header = part.removeprefix(HEADER)
    if counted_value(head, header.encode("ascii")):
        return f"the value of its header {header}"
    return f"all requests without exactly one header {header}"
