"""Tests of koder_gateway.tls."""
