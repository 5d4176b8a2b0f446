"""Makes `twistd --reactor=uvloop` known to Twisted."""

from twisted.application.reactors import Reactor

uvloop = Reactor("uvloop", "koder_gateway.transports.reactor", "uvloop's own transports under Twisted's interfaces.")
