"""What every way in for clients shares: the site, the base of requests, filters, and what waits for clients."""
