"""What both sides need from a reactor and its transports: turns, read sizes, adopted sockets."""
