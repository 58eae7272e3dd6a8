"""The scripts keep the highest version."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster.sharing import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def test_highest_version_holds_whoever_writes(start: Any) -> None:
    """After writes at the same time all processes have the same record, also one read late."""
    processes = [await start() for _ in range(4)]

    await asyncio.gather(*(one.write("http://a:80", n) for n, one in enumerate(processes)))
    last = await processes[0].write("http://a:80", 100)

    assert last is not None
    await until(lambda: {one.seen["http://a:80"] for one in processes} == {100}, 1.0)
