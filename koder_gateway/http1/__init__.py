"""Clients over HTTP/1.1: connections, their bytes, and what a stock resource needs of a connection."""
