"""Tests of koder_gateway.reactor."""
