"""Runs transforms on the request that is sent and on the response that came.

A request's transforms run after the hop-by-hop clean-up and before the proxy's own headers, a
response's after its clean-up and before ``response_headers``: headers that transforms add stay,
and the headers of the proxy win.
"""

from __future__ import annotations

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transforms.views import InboundRequest, OutboundRequest, OutboundResponse
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import set_headers


def joined(first: Pipeline | None, then: Pipeline | None) -> Pipeline | None:
    """The upstream's transforms, then the mount's; ``None`` for none at all."""
    return then if first is None else first.then(then)


def transform_request(transforms: Pipeline, exchange: Exchange, headers: Headers) -> Headers:
    """Change a request that is being built.

    Args:
        transforms: To run.
        exchange: Its method, target and query are set.
        headers: The client's headers that are forwarded.

    Returns:
        The headers to go on with.
    """
    inbound = InboundRequest(exchange.scope, exchange.path, exchange.prefix)
    request = OutboundRequest(inbound, exchange.method, exchange.target, exchange.query, headers)
    for transform in transforms.request:
        transform(request)
    exchange.method = request.raw_method
    exchange.target = request.raw_path
    exchange.query = request.raw_query
    return request.headers.raw


def transform_response(
    transforms: Pipeline, exchange: Exchange, status: int, headers: Headers, own: Headers
) -> Headers:
    """Change the headers of a response.

    Args:
        transforms: To run.
        exchange: Has the response.
        status: The upstream's.
        headers: The upstream's headers that are forwarded.
        own: ``response_headers`` of the settings, set last.
    """
    address = exchange.destination.settings.address
    response = OutboundResponse(
        InboundRequest(exchange.scope, exchange.path, exchange.prefix),
        status,
        headers,
        authority=address.authority,
        base_path=address.base_path,
        host=exchange.host,
    )
    for transform in transforms.response:
        transform(response)
    return set_headers(response.headers.raw, own)
