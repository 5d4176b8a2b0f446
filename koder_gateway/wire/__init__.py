"""What stands on the wire, without I/O: heads, targets, bodies, fields and the states of one exchange."""
