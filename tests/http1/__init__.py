"""Tests of koder_gateway.http1."""
