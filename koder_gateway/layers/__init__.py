"""TLS as a layer between a transport and a protocol: what both sides of the gateway share."""
