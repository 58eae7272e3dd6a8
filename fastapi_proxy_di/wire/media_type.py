"""Tells what a body is by its ``Content-Type``."""

from __future__ import annotations

__all__ = ["is_json", "is_json_type"]


def is_json_type(value: bytes) -> bool:
    """Whether a ``Content-Type`` is that of JSON."""
    media = value.partition(b";")[0].strip().lower()
    return media == b"application/json" or media.endswith(b"+json")


def is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a message has a body of JSON, by its headers with names in lower case."""
    for name, value in headers:
        if name == b"content-type":
            return is_json_type(value)
    return False
