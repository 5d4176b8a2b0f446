"""Tests of koder_gateway.transports."""
