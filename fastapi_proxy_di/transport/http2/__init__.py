"""Sends requests over HTTP/2."""
