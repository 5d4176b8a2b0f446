"""Where clients connect: endpoint strings, listeners, the PROXY header, the redirect port and ACME challenges."""
