"""Traces of exchanges: collected by the gateway, and sent to an OpenTelemetry collector by a process of their own."""
