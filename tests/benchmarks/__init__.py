"""Benchmarks of the gateway beside its peers; run them with `python -m tests.benchmarks run`."""
