"""Tests of koder_gateway.tenants."""
