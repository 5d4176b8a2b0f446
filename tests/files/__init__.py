"""Tests of koder_gateway.files."""
