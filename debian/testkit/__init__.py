"""The parts of `debian/test-installed`."""
