"""A small file of the machine, read and parsed anew when it has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["LocalFile"]

_Parsed = TypeVar("_Parsed")
_Stamp = tuple[int, int, int, int]


class LocalFile(Generic[_Parsed]):
    """The parsed content of a file; a file that is missing or not readable counts as empty.

    Args:
        path: Of the file.
        parse: Gives the content for the text.
    """

    def __init__(self, path: str, parse: Callable[[str], _Parsed]) -> None:
        self._path = Path(path)
        self._parse = parse
        self._stamp: _Stamp | None = None
        self._content = parse("")

    def content(self) -> _Parsed:
        """Give the content of the file as it is now. A call reads it only after a change."""
        stamp = self._stamp_now()  # before the text: a change while it is read is seen next time
        if stamp != self._stamp:
            self._stamp = stamp
            self._content = self._parse(self._text())
        return self._content

    def _stamp_now(self) -> _Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
