"""Pipelines of transforms, resolved at start."""

from functools import partial
from typing import Any

import pytest

from fastapi_proxy_di.transforms import (
    OutboundRequest,
    OutboundResponse,
    PathPrefix,
    ResponseHeader,
)
from fastapi_proxy_di.transforms.pipeline import Pipeline, pipeline_of


def on_request(request: OutboundRequest) -> None:
    """Change a request."""


def on_response(response: "OutboundResponse") -> None:
    """Change a response."""


def named(tenant: str, request: OutboundRequest) -> None:
    """Change a request, with an argument bound before."""


class Stamp:
    """A transform with settings of its own."""

    def __call__(self, response: OutboundResponse) -> None:
        """Change a response."""

    def on_request(self, request: OutboundRequest) -> None:
        """Change a request."""


class AsyncStamp:
    """A transform with an async ``__call__``, which is not allowed."""

    async def __call__(self, response: OutboundResponse) -> None:
        """Wait."""


async def waiting(request: OutboundRequest) -> None:
    """Wait."""


def unannotated(request) -> None:  # type: ignore[no-untyped-def]
    """Have no annotation."""


def wrong(request: int) -> None:
    """Change neither."""


def unknown(request: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Name a class that does not exist."""


def nothing() -> None:
    """Take nothing."""


def test_pipeline_of_nothing_is_none() -> None:
    """A request without transforms then costs nothing."""
    assert pipeline_of(()) is None


def test_pipeline_separates_functions_by_annotation() -> None:
    """Functions, methods, partials and objects; the annotation may be a string."""
    stamp = Stamp()
    bound = partial(named, "acme")
    pipeline = pipeline_of([on_response, on_request, stamp, stamp.on_request, bound])
    assert pipeline is not None
    assert pipeline.request == (on_request, stamp.on_request, bound)
    assert pipeline.response == (on_response, stamp)


def test_pipeline_keeps_the_order_of_models_and_functions() -> None:
    """They run in the order of the list."""
    pipeline = pipeline_of(
        [PathPrefix(prefix="/a"), on_request, ResponseHeader(name="x", set="1"), on_response]
    )
    assert pipeline is not None
    assert pipeline.request[1] is on_request
    assert pipeline.response[1] is on_response
    assert (len(pipeline.request), len(pipeline.response)) == (2, 2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (waiting, "waiting is async"),
        (AsyncStamp(), "AsyncStamp .* is async"),
        (unannotated, "unannotated does not say"),
        (wrong, "wrong does not say"),
        (nothing, "nothing does not say"),
        (unknown, "unknown cannot be inspected"),
        (7, "7 is neither"),
    ],
)
def test_pipeline_refuses_unusable_transforms(transform: Any, reason: str) -> None:
    """The error has the name of the function and how to write it."""
    with pytest.raises(ValueError, match=reason):
        pipeline_of([transform])


def test_pipelines_run_one_after_the_other() -> None:
    """The upstream's runs first, then the mount's."""
    upstream = Pipeline((on_request,), ())
    mount = Pipeline((), (on_response,))
    assert upstream.then(None) is upstream
    assert upstream.then(mount) == Pipeline((on_request,), (on_response,))
