"""The gateway as a Twisted service, and its parts: listening, periodic work, reloads, and the drain."""
