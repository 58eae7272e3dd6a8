"""Sets, appends and removes query parameters; all others stay byte for byte. Pure."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes


def remove_parameter(query: bytes, name: str) -> bytes:
    """Remove all parameters of a name.

    Args:
        query: Raw query, without ``?``.
        name: The name, not encoded; matches any encoding of it in ``query``.
    """
    wanted = name.encode("utf-8")
    return b"&".join(piece for piece in query.split(b"&") if _name(piece) != wanted)


def set_parameter(query: bytes, name: str, value: str) -> bytes:
    """Remove all parameters of a name, then append one."""
    return append_parameter(remove_parameter(query, name), name, value)


def append_parameter(query: bytes, name: str, value: str) -> bytes:
    """Append a parameter."""
    added = f"{quote(name, safe='')}={quote(value, safe='')}".encode("ascii")
    return query + b"&" + added if query else added


def _name(piece: bytes) -> bytes:
    return unquote_to_bytes(piece.partition(b"=")[0].replace(b"+", b" "))
