"""prometheus-fastapi-instrumentator sees a proxied mount as an ordinary router."""

from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator

from tests.monitoring.apps import asked_of_both

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("server", [{}, {"root_path": "/api"}], ids=["", "root_path"])
async def test_requests_are_counted_for_the_handler_of_an_ordinary_router(
    server: dict[str, Any],
) -> None:
    """Each request is counted once, with one ``handler`` for each mount."""
    registry = CollectorRegistry()
    counted: dict[tuple[str, str, str], float] = {}

    def take() -> list[tuple[str, str, str]]:
        new = []
        for metric in registry.collect():
            for sample in metric.samples:
                if sample.name == "http_requests_total":
                    labels = sample.labels
                    key = (labels["method"], labels["handler"], labels["status"])
                    new += [key] * int(sample.value - counted.get(key, 0))
                    counted[key] = sample.value
        return new

    app = FastAPI()
    Instrumentator(registry=registry).instrument(app)
    async with asked_of_both(app, take, **server) as seen:
        for mount, asked in seen.items():
            route = f"{mount}/{{path:path}}"
            assert asked.proxied == asked.ordinary
            assert {handler for counts in asked.proxied for _, handler, _ in counts} == {route}
            assert [counts[0][:2] for counts in asked.bare] == [
                ("GET", route),
                ("GET", route),
                ("POST", route),
            ]
