"""Tests of the whole gateway, from a client's socket to a service."""
