"""What operators look at: access log, metrics, health."""
