"""Request targets as bytes: the path below a mount, the target at a destination, dot segments.

A request's path is never decoded and encoded again, so the destination gets the client's
bytes. The raw path decides, because decoding loses which slashes were encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, combinations
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

__all__ = [
    "PathOutsideMount",
    "climbs",
    "given_target",
    "has_dot_segments",
    "join_target",
    "raw_path_below",
    "target_below",
    "target_below_mount",
    "target_in_mount",
]

Scope: TypeAlias = Mapping[str, Any]
"""An ASGI connection scope."""

_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"
_GIVEN: Final = re.compile(r"/[!-\"$-~]*\Z")


class PathOutsideMount(Exception):
    """The raw path does not lie below the mount segment by segment; the client gets a 404."""


def target_below(scope: Scope, below: str, *, routed: bool = False) -> tuple[bytes, bytes]:
    """Split the raw path at the mount.

    Args:
        scope: ASGI scope of the client's request.
        below: The decoded path below the mount that a proxied route matched, without its
            leading slash; empty also for the mount itself.
        routed: Whether a proxied route matched; if not, the mount is ``root_path``.

    Returns:
        The raw path below the mount and the mount's own raw path, ``root_path`` included.

    Raises:
        PathOutsideMount: An encoded slash follows the mount.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is None:
        raw_path = quote(path, safe=_PATH_SAFE).encode("ascii")
    # Some servers remove root_path from the path, others do not.
    has_root = not root_path or path == root_path or path.startswith(root_path.rstrip("/") + "/")
    if routed:
        if path.endswith("\n") and not below.endswith("\n"):
            below += "\n"  # a pattern's "$" also matches in front of a last line end
        mount = path[: len(path) - len(below)].removesuffix("/")
    else:
        mount = root_path.rstrip("/") if has_root else ""
    rest = raw_path_below(raw_path, mount)
    if rest is None:
        raise PathOutsideMount(path)
    prefix = raw_path[: len(raw_path) - len(rest)]
    if not has_root:
        prefix = quote(root_path.rstrip("/"), safe=_PATH_SAFE).encode("ascii") + prefix
    return rest, prefix


def target_below_mount(scope: Scope, mount: str) -> tuple[bytes, bytes]:
    """Split the raw path at a mount that code names.

    Args:
        scope: ASGI scope of the client's request.
        mount: Decoded path of the mount below ``root_path``, e.g. ``"/acme"``.

    Returns:
        As for ``target_below``.

    Raises:
        PathOutsideMount: The path does not lie below the mount segment by segment.
        ValueError: ``mount`` does not start with a slash.
    """
    if not mount.startswith("/"):
        raise ValueError(f"mount: {mount!r} must start with '/'")
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    whole = (root_path if _lies_below(path, root_path) else "") + mount.rstrip("/")
    if not _lies_below(path, whole):
        raise PathOutsideMount(path)
    return target_below(scope, path[len(whole) + 1 :], routed=True)


def target_in_mount(scope: Scope) -> tuple[bytes, bytes]:
    """Split the raw path at the mount of an ASGI application, in any framework.

    Starlette keeps the whole ``path`` and adds the mount to ``root_path``; other frameworks
    remove the mount from ``path``, and some do not name it at all. ``raw_path`` stays whole.

    Args:
        scope: ASGI scope that the mounted application gets.

    Returns:
        As for ``target_below``.

    Raises:
        PathOutsideMount: The mount does not end at a whole segment.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "").rstrip("/")
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is None:
        raw_path = quote(path, safe=_PATH_SAFE).encode("ascii")
    if not root_path and len(raw_path) == len(path):
        return raw_path, b""  # nothing is mounted, and nothing is escaped
    mount, outer = root_path, ""
    if root_path and not _lies_below(path, root_path):
        # A prefix that a proxy in front removed is in root_path only; Starlette keeps it apart.
        outer = scope.get("app_root_path", root_path).rstrip("/")
        mount = root_path.removeprefix(outer)
        if not _lies_below(path, mount):
            mount = ""
    if not mount and len(raw_path) != len(path):
        # The path has escapes, or the framework has removed the mount from it.
        mount = _removed_mount(path, unquote(raw_path.decode("utf-8", "replace")))
        outer = outer.removesuffix(mount)
    rest = raw_path_below(raw_path, mount)
    if rest is None:
        raise PathOutsideMount(path)
    prefix = raw_path[: len(raw_path) - len(rest)]
    return rest, quote(outer, safe=_PATH_SAFE).encode("ascii") + prefix if outer else prefix


def _lies_below(path: str, mount: str) -> bool:
    return path.startswith(mount) and path[len(mount) :][:1] in ("", "/")


def _removed_mount(path: str, whole: str) -> str:
    """Give the mount that a framework removed from the front of ``path``; ``""`` for none.

    Slashes at the end are ignored, because Litestar changes their number.
    """
    if path == whole:
        return ""
    rest, whole = path.rstrip("/"), whole.rstrip("/")
    if not whole.endswith(rest):
        raise PathOutsideMount(path)
    return whole[: len(whole) - len(rest)]


def given_target(path: str) -> bytes:
    """Check a path argument of ``forward`` and encode it.

    Raises:
        ValueError: It does not start with a slash, or is not percent-encoded.
    """
    if not _GIVEN.match(path):
        raise ValueError(
            f"path: {path!r} must start with '/' and be percent-encoded, without spaces, "
            "control characters, non-ASCII or '#'; encode what goes into it by "
            "urllib.parse.quote(text, safe='')"
        )
    return path.encode("ascii")


def join_target(base_path: bytes, path: bytes, query: bytes) -> bytes:
    """Build the origin-form target of a request; nothing is decoded.

    Args:
        base_path: Base path of the destination, no slash at its end.
        path: Raw path below it, ``b""`` for the base path itself.
        query: Raw query without ``?``, ``b""`` for none.

    Returns:
        Path and query, percent-encoded as they came.
    """
    target = base_path + path or b"/"
    return target + b"?" + query if query else target


def raw_path_below(raw_path: bytes, mount: str) -> bytes | None:
    """Give the raw path below a mount.

    Args:
        raw_path: Path as the client sent it, without its query.
        mount: Decoded path of the mount, no slash at its end, e.g. ``"/billing"``; ``""``
            for none.

    Returns:
        The rest of the path, byte for byte: ``b""`` or starting with a slash. ``None`` when
        the raw segments do not decode to those of the mount one by one, e.g. with an encoded
        slash after the mount.
    """
    if mount.isascii() and "%" not in mount:
        prefix = mount.encode("ascii")
        if raw_path.startswith(prefix):
            rest = raw_path[len(prefix) :]
            if not rest or rest[0] == 0x2F:
                return rest
    expected = mount.split("/")
    found = raw_path.split(b"/", len(expected))
    if len(found) < len(expected):
        return None
    for raw, text in zip(found, expected, strict=False):
        # Decoded as the server decodes ``scope["path"]``.
        if unquote(raw.decode("utf-8", "replace")) != text:
            return None
    return b"/" + found[-1] if len(found) > len(expected) else b""


_DOUBLE_DOT: Final = re.compile(rb"(?:\.|%2[eE])(?:\.|%2[eE])")
_DOT: Final = re.compile(rb"%2e", re.IGNORECASE)
_OTHER_SEPARATORS: Final = (rb"\\", rb"%2[fF]", rb"%5[cC]")
# Servers differ in what they read as a slash, so each combination is tried.
_SEPARATOR_SETS: Final = tuple(
    re.compile(b"|".join((b"/", *chosen)))
    for chosen in chain.from_iterable(combinations(_OTHER_SEPARATORS, n) for n in range(4))
)


def climbs(path: bytes) -> bool:
    """Whether dot segments lead above the start of the path, as any server might read it.

    Dots, slashes and backslashes may be percent-encoded once (``%2e``, ``%2f``, ``%5c``).
    Empty segments are skipped, as by servers that merge slashes, and path parameters
    (``..;x``) are cut off, as by servlet containers.

    Args:
        path: Raw path.

    Returns:
        True when the path must not be forwarded.
    """
    # 0.1 µs for an ordinary path: dot segments need ".." or "%2".
    # `find` is faster than `in`, which first tries to read the bytes as a number (CPython 3.11).
    if path.find(b"..") < 0 and (path.find(b"%2") < 0 or _DOUBLE_DOT.search(path) is None):
        return False
    return any(_climbs(separators.split(path)) for separators in _SEPARATOR_SETS)


def _climbs(segments: list[bytes]) -> bool:
    depth = 0
    for segment in segments:
        name = _DOT.sub(b".", segment).partition(b";")[0]
        if name == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif name not in (b"", b"."):
            depth += 1
    return False


# Between two of all separators that some server knows; path parameters as in ``climbs``.
_DOT_SEGMENT: Final = re.compile(
    rb"(?:^|/|\\|%2f|%5c)(?:\.|%2e){1,2}(?:/|\\|%2f|%5c|;|\Z)", re.IGNORECASE
)


def has_dot_segments(path: bytes) -> bool:
    """Whether a segment is ``.`` or ``..`` (RFC 3986 §3.3), as any server might read it.

    The readings are those of ``climbs``: each path that climbs has dot segments.

    Args:
        path: Raw path.
    """
    # 0.1 µs for a path without dots, as in ``climbs``.
    if path.find(b".") < 0 and path.find(b"%2") < 0:
        return False
    return _DOT_SEGMENT.search(path) is not None
