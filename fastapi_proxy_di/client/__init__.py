"""Calls an upstream from code: the httpx client, leases, and the map of their errors."""
