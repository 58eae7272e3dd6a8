"""Sends requests to ASGI apps of the same process."""
