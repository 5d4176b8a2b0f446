"""TLS with clients: certificates, contexts, SNI, and client certificates."""
