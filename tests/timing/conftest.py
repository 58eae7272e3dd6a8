"""Fixtures of the timed tests: the upstream of the end-to-end tests, as a process."""

from tests.e2e.conftest import upstream

__all__ = ["upstream"]
