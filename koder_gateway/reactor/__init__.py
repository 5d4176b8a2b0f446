"""What both sides ask of a reactor and its transports: turns, sizes of reads, sockets that were handed over."""
