"""Tests of koder_gateway.config."""
