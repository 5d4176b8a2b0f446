"""Tests of the command line: checks, tools, demo."""
