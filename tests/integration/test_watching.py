"""Files are watched: whole changes count once, also through the links of a ConfigMap."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastapi_proxy_di.integration import watching
from tests.support.gateways import until


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every 10 ms."""
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "SETTLED_SECONDS", 0.02)


class Seen:
    """What the app has read of one file, each time that it was told to."""

    def __init__(self, file: Path) -> None:
        self.texts: list[str | None] = []
        self._file = file

    async def changed(self) -> None:
        """Read the file."""
        self.texts.append(self._file.read_text() if self._file.exists() else None)

    async def of(self, number: int) -> list[str | None]:
        """Wait until the file was read this often."""
        await until(lambda: len(self.texts) >= number)
        return self.texts


@asynccontextmanager
async def watched(file: Path, *paths: Path) -> AsyncIterator[Seen]:
    """Watch ``paths``, by default the file alone."""
    seen = Seen(file)
    task = asyncio.create_task(watching.watch(lambda: paths or (file,), seen.changed))
    try:
        await seen.of(1)
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def looks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Wait for some further looks at the files."""
    counted = 0
    states_of = watching.states_of

    def count(paths: object) -> watching.States:
        nonlocal counted
        counted += 1
        return states_of(paths)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(watching, "states_of", count)
        await until(lambda: counted > number)


async def test_first_reading_is_at_once(tmp_path: Path) -> None:
    """A change between the start of the app and that of the watch is not missed."""
    file = tmp_path / "a.toml"
    file.write_text("1")
    async with watched(file) as seen:
        assert await seen.of(1) == ["1"]


@pytest.mark.parametrize("missing", [False, True])
async def test_file_that_is_written(tmp_path: Path, missing: bool) -> None:
    """A file changes in its place, or comes."""
    file = tmp_path / "a.toml"
    if not missing:
        file.write_text("1")
    async with watched(file) as seen:
        file.write_text("22")

        assert await seen.of(2) == [None if missing else "1", "22"]


async def test_file_that_is_renamed_into_its_place(tmp_path: Path) -> None:
    """As editors and tools write: another file takes the name."""
    file, new = tmp_path / "a.toml", tmp_path / "new"
    file.write_text("1")
    async with watched(file) as seen:
        new.write_text("2")
        new.replace(file)

        assert await seen.of(2) == ["1", "2"]


async def test_link_of_a_config_map_that_moves(tmp_path: Path) -> None:
    """Kubernetes: a.toml -> ..data/a.toml, and ..data moves to a new directory."""

    def put(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.toml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    put("..2026_1", "1")
    file = tmp_path / "a.toml"
    file.symlink_to("..data/a.toml")
    async with watched(file) as seen:
        put("..2026_2", "2")

        assert await seen.of(2) == ["1", "2"]


async def test_file_in_a_secrets_directory(tmp_path: Path) -> None:
    """A file that comes into a directory counts, and one that goes."""
    file = tmp_path / "UPSTREAM_BILLING_POLICY"
    async with watched(file, tmp_path) as seen:
        file.write_text("first")
        await seen.of(2)
        file.unlink()

        assert await seen.of(3) == [None, "first", None]


async def test_half_written_file_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading before the last one finds other contents, and only the last one counts."""
    file = tmp_path / "a.toml"
    file.write_text("0")
    async with watched(file) as seen:
        contents, left = watching.contents, list(range(1, 6))

        def growing(paths: object) -> watching.Contents:
            if left:
                file.write_text(f"half {left.pop(0)}")
            return contents(paths)  # type: ignore[arg-type]

        monkeypatch.setattr(watching, "contents", growing)
        file.write_text("half")

        assert await seen.of(2) == ["0", "half 5"]


async def test_change_that_is_taken_back_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the contents matter: neither a touch nor a change that is gone at once."""
    file = tmp_path / "a.toml"
    file.write_text("1")
    async with watched(file) as seen:
        os.utime(file, (1, 1))
        await looks(monkeypatch, 3)
        contents, times = watching.contents, iter(("2", "1", "1"))

        def flapping(paths: object) -> watching.Contents:
            file.write_text(next(times, "1"))
            return contents(paths)  # type: ignore[arg-type]

        monkeypatch.setattr(watching, "contents", flapping)
        os.utime(file, (2, 2))
        await looks(monkeypatch, 3)

        assert seen.texts == ["1"]


async def test_contents_are_compared_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system may show no change of a file's state; its contents are read anyway."""
    monkeypatch.setattr(watching, "READ_SECONDS", 0.05)
    state: Callable[[Path], tuple[int, ...]] = lambda path: (1,)  # noqa: E731
    monkeypatch.setattr(watching, "_state", state)
    file = tmp_path / "a.toml"
    file.write_text("1")
    async with watched(file) as seen:
        await looks(monkeypatch, 2)
        file.write_text("2")

        assert await seen.of(2) == ["1", "2"]


def test_missing_file_has_no_state(tmp_path: Path) -> None:
    """A file that is missing has a state of its own, so that its coming is a change."""
    assert watching.states_of([tmp_path / "none"]) == {tmp_path / "none": None}
