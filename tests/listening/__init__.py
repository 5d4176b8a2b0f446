"""Tests of koder_gateway.listening."""
