"""Tests of koder_gateway.exchange."""
