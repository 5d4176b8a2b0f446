"""Tests of the daemon: the plugin, signals, reloads, the end."""
