"""TLS over memory BIOs, for both sides: the layer between a transport and a protocol, and its records."""
