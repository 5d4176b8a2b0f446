"""HTTP as bytes, without I/O: request and response heads, targets, bodies, header names, HTTP/2 frames."""
