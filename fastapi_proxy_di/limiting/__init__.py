"""Limits of requests per key, in the memory of a process or in the store that processes share."""
