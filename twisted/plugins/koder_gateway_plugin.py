"""Tells twistd and twist of `koder-gateway`."""

from twisted.application.service import ServiceMaker

koder_gateway = ServiceMaker(
    "koder-gateway",
    "koder_gateway.tap",
    "The one door to Koder ID: a multi-tenant HTTPS gateway.",
    "koder-gateway",
)
