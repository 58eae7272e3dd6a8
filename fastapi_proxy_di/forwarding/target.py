"""Where a request goes below the destination's base path, and what stands before it.

The raw path decides: the decoded one has lost which slashes were encoded.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from starlette.types import Scope

from fastapi_proxy_di.wire.urls import raw_path_below

_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"
_GIVEN: Final = re.compile(r"/[!-\"$-~]*\Z")


class PathOutsideMount(Exception):
    """The raw path does not lie below the mount segment by segment: to the client, a 404."""


def target_below(scope: Scope, below: str, *, routed: bool = False) -> tuple[bytes, bytes]:
    """Part the raw path at the mount.

    Args:
        scope: Of the client's request.
        below: The decoded path below the mount that a proxied route matched, without its
            leading slash; empty also for the mount itself.
        routed: Whether one did; otherwise all below ``root_path`` counts.

    Returns:
        The raw path below the mount and the mount's own raw path, ``root_path`` included.

    Raises:
        PathOutsideMount: An encoded slash stands where the two meet.
    """
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is None:
        raw_path = quote(path, safe=_PATH_SAFE).encode("ascii")
    # Whether the server has left root_path in the path differs between servers.
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


def target_in_mount(scope: Scope) -> tuple[bytes, bytes]:
    """Part the raw path where a framework has mounted the ASGI application that is called.

    Starlette leaves the whole path and adds the mount to ``root_path``; other frameworks take
    the mount out of ``path``, and some of them name it nowhere. ``raw_path`` stays whole.

    Args:
        scope: Of the client's request, as the mounted application gets it.

    Returns:
        As for ``target_below``.

    Raises:
        PathOutsideMount: No border of segments is where the mount ends.
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
        # What a proxy in front has taken off is in root_path alone; Starlette keeps it apart.
        outer = scope.get("app_root_path", root_path).rstrip("/")
        mount = root_path.removeprefix(outer)
        if not _lies_below(path, mount):
            mount = ""
    if not mount and len(raw_path) != len(path):
        # Escapes, or a framework that takes the mount out of the path.
        mount = _taken_out(path, unquote(raw_path.decode("utf-8", "replace")))
        outer = outer.removesuffix(mount)
    rest = raw_path_below(raw_path, mount)
    if rest is None:
        raise PathOutsideMount(path)
    prefix = raw_path[: len(raw_path) - len(rest)]
    return rest, quote(outer, safe=_PATH_SAFE).encode("ascii") + prefix if outer else prefix


def _lies_below(path: str, mount: str) -> bool:
    return path.startswith(mount) and path[len(mount) :][:1] in ("", "/")


def _taken_out(path: str, whole: str) -> str:
    """The mount that is in front of ``path`` in the whole path; ``""`` for none.

    Litestar takes slashes at the end for one.
    """
    if path == whole:
        return ""
    rest, whole = path.rstrip("/"), whole.rstrip("/")
    if not whole.endswith(rest):
        raise PathOutsideMount(path)
    return whole[: len(whole) - len(rest)]


def given_target(path: str) -> bytes:
    """Check a path that a caller gave.

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
