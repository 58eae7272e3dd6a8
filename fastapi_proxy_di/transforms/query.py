"""Raw queries changed by name; what is not named stays byte for byte."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes


def remove_parameter(query: bytes, name: str) -> bytes:
    """Remove every parameter of that name.

    Args:
        query: Raw, without ``?``.
        name: Not encoded; found however the client has encoded it.
    """
    wanted = name.encode("utf-8")
    return b"&".join(piece for piece in query.split(b"&") if _name(piece) != wanted)


def set_parameter(query: bytes, name: str, value: str) -> bytes:
    """Put one parameter in the place of all of its name, at the end."""
    return append_parameter(remove_parameter(query, name), name, value)


def append_parameter(query: bytes, name: str, value: str) -> bytes:
    """Add a parameter at the end."""
    added = f"{quote(name, safe='')}={quote(value, safe='')}".encode("ascii")
    return query + b"&" + added if query else added


def _name(piece: bytes) -> bytes:
    return unquote_to_bytes(piece.partition(b"=")[0].replace(b"+", b" "))
