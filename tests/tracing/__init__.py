"""Tests of koder_gateway.ops."""
