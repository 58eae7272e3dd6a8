"""Runs transforms on the request to send and on the response of the upstream.

Request transforms run after hop-by-hop headers are removed and before the proxy sets its own
headers. Response transforms run after hop-by-hop headers are removed and before
``response_headers``. So headers that a transform adds are kept, unless the proxy sets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from starlette.responses import Response

from fastapi_proxy_di.forwarding.exchange import Exchange
from fastapi_proxy_di.forwarding.redirects import places_of
from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.transforms.pipeline import Pipeline
from fastapi_proxy_di.transforms.views import InboundRequest, OutboundRequest, OutboundResponse
from fastapi_proxy_di.transport.protocol import Headers
from fastapi_proxy_di.wire.headers import set_headers


class Answered(Exception):
    """Raised for a request to which a request transform responds by itself.

    Args:
        response: The response.
    """

    def __init__(self, response: Response) -> None:
        super().__init__("a request transform has given a response")
        self.response: Response = response


def joined(first: Pipeline | None, then: Pipeline | None) -> Pipeline | None:
    """Join the upstream's transforms and the mount's; ``None`` if there are none."""
    return then if first is None else first.then(then)


def transform_request(transforms: Pipeline, exchange: Exchange, headers: Headers) -> Headers:
    """Change a request that is being built.

    Args:
        transforms: The transforms to run.
        exchange: The exchange; its method, target and query are set.
        headers: The client's headers that are forwarded.

    Returns:
        The changed headers.

    Raises:
        Answered: A transform has given a response, so that nothing is sent.
    """
    inbound = InboundRequest(exchange.scope, exchange.path, exchange.prefix)
    request = OutboundRequest(inbound, exchange.method, exchange.target, exchange.query, headers)
    for transform in transforms.request:
        response = transform(request)
        if isinstance(response, Response):
            raise Answered(response)
    exchange.method = request.raw_method
    exchange.target = request.raw_path
    exchange.query = request.raw_query
    return request.headers.raw


def transform_response(
    transforms: Pipeline,
    exchange: Exchange,
    status: int,
    headers: Headers,
    own: Headers,
    pool: Sequence[Destination],
) -> Headers:
    """Change the headers of a response.

    Args:
        transforms: The transforms to run.
        exchange: The exchange of the response.
        status: The status of the response.
        headers: The upstream's headers that are forwarded.
        own: ``response_headers`` of the settings, set last.
        pool: The destinations of the upstream.
    """
    address = exchange.destination.settings.address
    response = OutboundResponse(
        InboundRequest(exchange.scope, exchange.path, exchange.prefix),
        status,
        headers,
        authority=address.authority,
        base_path=address.base_path,
        host=exchange.host,
        places=partial(places_of, exchange, pool),
    )
    for transform in transforms.response:
        transform(response)
    return set_headers(response.headers.raw, own)
