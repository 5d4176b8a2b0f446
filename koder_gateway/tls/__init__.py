"""Certificates and the endpoints that use them."""
