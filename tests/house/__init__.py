"""Tests of the repository itself: floors, bounds, documentation, benchmarks."""
