"""TLS with clients: certificates, contexts, the name that a client asks for, and its certificate."""
