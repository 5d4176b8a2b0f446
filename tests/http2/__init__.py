"""Tests of koder_gateway.http2."""
