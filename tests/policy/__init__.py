"""Tests of koder_gateway.policy."""
