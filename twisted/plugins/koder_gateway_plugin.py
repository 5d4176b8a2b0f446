"""Tells twistd and twist of `koder-gateway`."""

import sys

from twisted.application.service import ServiceMaker

from koder_gateway.ops.signals import HANGUP

# The first of ours that twistd reads: from here on an early SIGHUP is kept for the gateway. Other plugins' processes
# read this file too, and keep the signals as they have them.
if "koder-gateway" in sys.argv[1:]:
    HANGUP.hold()

koder_gateway = ServiceMaker(
    "koder-gateway",
    "koder_gateway.tap",
    "A multi-tenant HTTPS gateway for Koder ID.",
    "koder-gateway",
)
