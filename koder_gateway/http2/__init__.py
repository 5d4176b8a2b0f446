"""Clients over HTTP/2: connections, streams, frames, and the windows of both directions."""
