"""A start goes on without the store."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.sharing import until
from tests.support.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


async def test_start_goes_on_without_the_store_and_finds_it_later(start: Any) -> None:
    """A store that is not there yet is no failure of the start."""
    server = RedisServer()
    try:
        began = time.monotonic()
        one = await start(server.url)
        assert time.monotonic() - began < 2.5
        assert one.events == ["StoreLost"]
        assert await one.write("http://a:80", 1) is None

        server.start()
        two = await start(server.url)

        await until(lambda: two.seen == {"http://a:80": 1}, 3.0)
        assert one.events == ["StoreLost", "StoreBack"]
    finally:
        server.close()
