"""Files of the machine that are read anew when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastapi_proxy_di.discovery.local_file import LocalFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file may be."""
    return tmp_path / "file"


def test_file_is_read_once_until_it_changes(path: Path) -> None:
    """The parsed content is the same object; another length is a change."""
    path.write_text("a")
    file = LocalFile(str(path), list)

    first, again = file.content(), file.content()
    path.write_text("bc")

    assert first is again
    assert (first, file.content()) == (["a"], ["b", "c"])


def test_replaced_file_of_the_same_size_and_time_is_read(path: Path, tmp_path: Path) -> None:
    """As programs replace such files: another file takes the name."""
    path.write_text("a")
    other = tmp_path / "other"
    other.write_text("b")
    for one in (path, other):
        os.utime(one, (1, 1))
    file = LocalFile(str(path), str)

    first = file.content()
    other.replace(path)

    assert (first, file.content()) == ("a", "b")


def test_missing_file_is_empty_until_it_is_there(path: Path) -> None:
    """It may come later, and go again."""
    file = LocalFile(str(path), str)

    contents = [file.content()]
    path.write_text("a")
    contents.append(file.content())
    path.unlink()
    contents.append(file.content())

    assert contents == ["", "a", ""]


def test_folder_in_place_of_the_file_is_empty(path: Path) -> None:
    """As any file that cannot be read."""
    path.mkdir()

    assert LocalFile(str(path), str).content() == ""


def test_bytes_that_are_not_utf8_do_not_hide_the_rest(path: Path) -> None:
    """A comment may be in an old encoding."""
    path.write_bytes(b"# \xe9\n10.0.0.1 api\n")

    assert LocalFile(str(path), str).content().endswith("\n10.0.0.1 api\n")
