"""The pytest plugin: fixtures over ``fastapi_proxy_di.testing``.

pytest imports this file in every run of an environment that has the package, so it imports
nothing but pytest; the rest comes with the first fixture that is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

    from fastapi_proxy_di.integration.dependency import Upstream
    from fastapi_proxy_di.settings import Mention
    from fastapi_proxy_di.testing import Clock, Source, StandIn, StandInFixture

__all__ = ["proxy_clock", "stand_in"]


@pytest.fixture
def stand_in() -> Iterator[StandInFixture]:
    """Replace upstreams of an app until the end of the test, as ``testing.stand_in`` does."""
    from fastapi_proxy_di.testing import StandIn  # noqa: PLC0415  # only when it is used

    with ExitStack() as stack:

        def replace(
            app: FastAPI,
            upstream: Mention | Upstream,
            source: Source | Mapping[str, Source],
            *,
            clock: Clock | None = None,
            **settings: Any,
        ) -> StandIn:
            made = StandIn(upstream, source, clock=clock, **settings)
            return stack.enter_context(made.replace(app))

        yield replace


@pytest.fixture
def proxy_clock() -> Clock:
    """A clock for stand-ins."""
    from fastapi_proxy_di.testing import Clock  # noqa: PLC0415  # only when it is used

    return Clock()
