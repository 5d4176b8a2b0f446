"""Pure decisions: tenants, routing, CORS, limits and the client's address."""
