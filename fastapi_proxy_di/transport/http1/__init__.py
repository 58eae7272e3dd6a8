"""Sends requests over HTTP/1.1."""
