"""Transforms at work: between the forwarders' own steps, on what leaves and what comes back.

A request's run after the hop-by-hop clean-up and before the proxy's own fields, an
answer's after its clean-up and before ``response_headers``: nothing that either side adds
is lost to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import Scope

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transforms.views import InboundRequest, OutboundRequest, OutboundResponse
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import set_fields

if TYPE_CHECKING:
    from fastapi_proxy_di.forwarding.outbound import Outbound


def joined(first: Pipeline | None, then: Pipeline | None) -> Pipeline | None:
    """The upstream's transforms, then the mount's; ``None`` for none at all."""
    return then if first is None else first.then(then)


def transform_request(
    transforms: Pipeline, scope: Scope, prefix: bytes, outbound: Outbound, headers: Headers
) -> Headers:
    """Change a request that is being built.

    Args:
        transforms: To run.
        scope: Of the client's request.
        prefix: Raw path of the mount.
        outbound: Its method, path and query are set.
        headers: The client's that stay.

    Returns:
        The headers to go on with.
    """
    inbound = InboundRequest(scope, outbound.path, prefix)
    request = OutboundRequest(inbound, outbound.method, outbound.path, outbound.query, headers)
    for transform in transforms.request:
        transform(request)
    outbound.method = request.raw_method
    outbound.path = request.raw_path
    outbound.query = request.raw_query
    return request.headers.raw


def transform_answer(
    transforms: Pipeline,
    headers: Headers,
    status: int,
    *,
    scope: Scope,
    path: bytes,
    prefix: bytes,
    destination: Destination,
    host: bytes | None,
    own: Headers,
) -> Headers:
    """Change the headers of an answer.

    Args:
        transforms: To run.
        headers: Those that cross.
        status: The upstream's.
        scope: Of the client's request.
        path: Raw path below the mount.
        prefix: Raw path of the mount.
        destination: Who answered.
        host: The Host it was sent, ``None`` for its own.
        own: ``response_headers``, which have the last word.
    """
    address = destination.settings.address
    response = OutboundResponse(
        InboundRequest(scope, path, prefix),
        status,
        headers,
        authority=address.authority,
        base_path=address.base_path,
        host=host,
    )
    for transform in transforms.response:
        transform(response)
    return set_fields(response.headers.raw, own)
