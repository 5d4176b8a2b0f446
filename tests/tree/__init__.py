"""Tests of koder_gateway.tree."""
