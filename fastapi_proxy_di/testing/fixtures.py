"""The type of the pytest fixture ``stand_in``; does not import pytest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import FastAPI

from fastapi_proxy_di.integration.dependency import Upstream
from fastapi_proxy_di.settings import Mention
from fastapi_proxy_di.testing.clock import Clock
from fastapi_proxy_di.testing.destinations import Source
from fastapi_proxy_di.testing.stand_in import StandIn

__all__ = ["StandInFixture"]


class StandInFixture(Protocol):
    """The pytest fixture ``stand_in``: as the function `stand_in`, closed when the test ends."""

    def __call__(
        self,
        app: FastAPI,
        upstream: Mention | Upstream,
        source: Source | Mapping[str, Source],
        *,
        clock: Clock | None = None,
        **settings: Any,
    ) -> StandIn:
        """Replace an upstream of an app until the end of the test.

        Args:
            app: The app under test.
            upstream: As for `StandIn`.
            source: As for `StandIn`.
            clock: As for `StandIn`.
            **settings: As for `StandIn`.
        """
        ...
