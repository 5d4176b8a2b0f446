"""Several processes that serve on the same ports, and the supervisor over them."""
