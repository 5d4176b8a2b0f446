"""Certificates by ACME: names on their way to a certificate, ordered by a process of their own."""
