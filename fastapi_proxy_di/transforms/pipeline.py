"""Resolves the transforms of an upstream or a mount, at start, into two tuples of functions.

A transform is a model of the settings, or a function whose one argument is annotated with
`OutboundRequest` or `OutboundResponse`. Functions are synchronous: a request does not wait
for them. Asynchronous work belongs in a dependency.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple, cast, get_args

from fastapi_proxy_di.settings.transforms import TransformSettings
from fastapi_proxy_di.transforms.builtin_request import (
    RequestTransform,
    RequestTransformSettings,
    request_transform,
)
from fastapi_proxy_di.transforms.builtin_response import (
    ResponseTransform,
    ResponseTransformSettings,
    response_transform,
)
from fastapi_proxy_di.transforms.views import OutboundRequest, OutboundResponse

Transform = TransformSettings | RequestTransform | ResponseTransform
"""A transform, as given to ``proxy_router(transforms=...)``."""


class Pipeline(NamedTuple):
    """Transforms in the order in which they run.

    Attributes:
        request: Functions that change the request.
        response: Functions that change the response.
    """

    request: tuple[RequestTransform, ...]
    response: tuple[ResponseTransform, ...]

    def then(self, other: Pipeline | None) -> Pipeline:
        """Give a pipeline that runs these transforms first, then the transforms of ``other``."""
        if other is None:
            return self
        return Pipeline(self.request + other.request, self.response + other.response)


def pipeline_of(transforms: Iterable[Transform]) -> Pipeline | None:
    """Resolve transforms; ``None`` if there are none.

    Raises:
        ValueError: A transform is a coroutine function, or its argument is not annotated.
    """
    request: list[RequestTransform] = []
    response: list[ResponseTransform] = []
    for transform in transforms:
        if isinstance(transform, get_args(RequestTransformSettings)):
            request.append(request_transform(transform))
        elif isinstance(transform, get_args(ResponseTransformSettings)):
            response.append(response_transform(transform))
        elif _takes(transform) is OutboundRequest:
            request.append(cast("RequestTransform", transform))
        else:
            response.append(cast("ResponseTransform", transform))
    return Pipeline(tuple(request), tuple(response)) if request or response else None


def _takes(function: Any) -> type[OutboundRequest | OutboundResponse]:
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise ValueError(f"transforms: {function!r} is neither a transform nor a function")  # noqa: TRY004 - a fault as the others
    # A callable object is asynchronous if its __call__ is.
    call = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call):
        raise ValueError(
            f"transforms: {name} is async, transforms are not; await in a dependency "
            "(proxy_router(options=...)) and leave the result in the request's state"
        )
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except (TypeError, ValueError, NameError) as error:
        raise ValueError(f"transforms: {name} cannot be inspected: {error}") from error
    annotation = parameters[0].annotation if parameters else None
    if annotation is OutboundRequest:
        return OutboundRequest
    if annotation is OutboundResponse:
        return OutboundResponse
    raise ValueError(
        f"transforms: {name} does not say what it changes; annotate its argument with "
        "OutboundRequest or OutboundResponse"
    )
