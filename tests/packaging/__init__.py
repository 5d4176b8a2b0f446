"""Tests of the wheel, the editable install and the Debian package."""
