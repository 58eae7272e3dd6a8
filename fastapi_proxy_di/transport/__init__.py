"""Sends one request to one destination: HTTP/1.1, HTTP/2, in-process apps, WebSocket."""
