"""Runs the demo: a fleet of small upstreams, a gateway in front, load, and its figures."""
