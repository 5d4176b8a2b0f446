"""Tests of koder_gateway.downstream."""
