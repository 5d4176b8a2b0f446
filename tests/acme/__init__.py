"""Certificates by ACME: the pure parts each by itself, and the whole with an authority."""
