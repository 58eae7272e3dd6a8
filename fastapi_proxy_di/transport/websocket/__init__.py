"""Speaks WebSocket to destinations: handshake, frames, connection."""
