"""Requests and responses for tests of transforms without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi_proxy_di.pools.destination import Destination
from fastapi_proxy_di.settings import DestinationSettings
from fastapi_proxy_di.transforms import InboundRequest, OutboundRequest, OutboundResponse, Transform
from fastapi_proxy_di.transforms.location import Places
from fastapi_proxy_di.transforms.pipeline import pipeline_of

Headers = Sequence[tuple[bytes, bytes]]


def inbound(
    path: bytes = b"/x", *, mount: bytes = b"/billing", headers: Headers = (), **scope: Any
) -> InboundRequest:
    """Make a client's request; keywords are entries of the scope."""
    whole = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [*headers],
        "client": ("192.0.2.7", 4711),
        **scope,
    }
    return InboundRequest(whole, path, mount)


def outbound(
    path: bytes = b"/x",
    query: bytes = b"",
    headers: Headers = (),
    *,
    method: bytes = b"GET",
    **scope: Any,
) -> OutboundRequest:
    """Make a request to send."""
    return OutboundRequest(inbound(path, headers=headers, **scope), method, path, query, [*headers])


def response(
    status: int = 200,
    headers: Headers = (),
    *,
    mount: bytes = b"/billing",
    base_path: bytes = b"",
    host: bytes | None = None,
) -> OutboundResponse:
    """Make a response of ``api.test``."""
    destination = Destination(DestinationSettings(url="http://api.test" + base_path.decode()))
    return OutboundResponse(
        inbound(mount=mount),
        status,
        [*headers],
        authority=b"api.test",
        base_path=base_path,
        host=host,
        places=lambda: Places(mount, destination, sent_host=host),
    )


def changed(request: OutboundRequest, *transforms: Transform) -> OutboundRequest:
    """Run request transforms, and give the changed request."""
    pipeline = pipeline_of(transforms)
    assert pipeline is not None
    assert not pipeline.response
    for transform in pipeline.request:
        transform(request)
    return request


def headers_after(response: OutboundResponse, *transforms: Transform) -> Headers:
    """Run response transforms and give the headers."""
    pipeline = pipeline_of(transforms)
    assert pipeline is not None
    assert not pipeline.request
    for transform in pipeline.response:
        transform(response)
    return response.headers.raw
