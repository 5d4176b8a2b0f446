"""What both sides of the gateway need between a transport and a protocol: TLS, and a straight way for bytes."""
