"""Decisions about the health of destinations, from probes and from live traffic."""
