"""A changed file of settings is taken within a second and a half of its last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastapi_proxy_di.integration.watching import watch
from tests.support.gateways import until

_LIMIT_SECONDS = 1.5


def _whole(file: Path) -> Iterator[None]:
    file.write_text("changed")
    yield


def _in_parts(file: Path) -> Iterator[None]:
    for letter in "changed":
        with file.open("a" if letter != "c" else "w") as written:
            written.write(letter)
        yield


def _renamed(file: Path) -> Iterator[None]:
    other = file.with_suffix(".new")
    other.write_text("changed")
    other.replace(file)
    yield


@pytest.mark.parametrize("write", [_whole, _in_parts, _renamed])
async def test_change_is_taken_soon_after_it_is_whole(write: object, tmp_path: Path) -> None:
    """Once, however it was written."""
    assert callable(write)
    file = tmp_path / "orders.toml"
    file.write_text("first")
    taken: list[tuple[str, float]] = []

    async def changed() -> None:
        taken.append((file.read_text(), time.monotonic()))

    watching = asyncio.create_task(watch(lambda: (file,), changed))
    await until(lambda: taken)
    for _ in write(file):
        written = time.monotonic()
        await asyncio.sleep(0.15)  # less than what the watch waits for
    await until(lambda: len(taken) == 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    assert taken[1][0] == "changed"
    assert taken[1][1] - written < _LIMIT_SECONDS
