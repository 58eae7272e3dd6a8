"""Watches files by polling: their state each second, their contents every 30 seconds.

Each look follows symbolic links anew, so a Kubernetes ConfigMap, whose files are links through
``..data``, is seen when that link moves. Polling works on every file system, also where the
kernel reports nothing (network shares, some container mounts). It costs one ``stat`` a file and
second, in a thread: about 10 microseconds each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["watch"]

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at the state of the files."""

READ_SECONDS: Final = 30.0
"""Seconds after which files are compared by their contents, even if their state is the same."""

SETTLED_SECONDS: Final = 0.25
"""Seconds between two readings that must be equal, so that no half-written file counts."""

Contents: TypeAlias = dict[Path, bytes | None]
States: TypeAlias = dict[Path, tuple[int, ...] | None]


async def watch(
    files: Callable[[], Iterable[Path]], changed: Callable[[], Awaitable[None]]
) -> None:
    """Call ``changed`` once now, and each time the contents of files have changed, for ever.

    The first call finds what has changed since the settings were read.

    Args:
        files: Gives the files, and directories whose files count; they may be missing.
        changed: Reads the files.
    """
    loop = asyncio.get_running_loop()
    known = await asyncio.to_thread(contents, files())
    await changed()
    states: States = {}
    read_at = loop.time()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before, states = states, await asyncio.to_thread(states_of, files())
        if states == before and loop.time() - read_at < READ_SECONDS:
            continue
        read_at = loop.time()
        found = await asyncio.to_thread(contents, files())
        if found == known:
            continue
        while found != (found := await _later(files)):
            pass
        if found != known:
            known = found
            await changed()


async def _later(files: Callable[[], Iterable[Path]]) -> Contents:
    await asyncio.sleep(SETTLED_SECONDS)
    return await asyncio.to_thread(contents, files())


def states_of(paths: Iterable[Path]) -> States:
    """Give what ``stat`` tells of each file, ``None`` for one that cannot be read."""
    return {path: _state(path) for path in _all_files(paths)}


def contents(paths: Iterable[Path]) -> Contents:
    """Give a digest of each file, ``None`` for one that cannot be read."""
    return {path: _digest(path) for path in _all_files(paths)}


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(path: Path) -> bytes | None:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:  # missing, or a directory
        return None


def _all_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        try:
            found += sorted(path.iterdir())
        except OSError:
            found.append(path)
    return found
