"""The gateway as a Twisted service, and its parts: what listens, what sweeps, what a reload replaces, how it ends."""
