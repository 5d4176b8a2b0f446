"""What the documentation says about each key of the configuration, written from the code (`make reference`)."""
