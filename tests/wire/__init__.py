"""Tests of koder_gateway.wire."""
