"""For operators: access log, metrics, health, signals, systemd."""
