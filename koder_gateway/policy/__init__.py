"""Decisions, values in and values out: tenants, routing, CORS, limits, the client's address."""
