"""Tests of koder_gateway.upstream."""
