"""Changes to requests and responses: as settings, or as functions that a user writes."""

from fastapi_proxy_di.settings.transforms import (
    CookieDomain,
    CookiePath,
    LocationRewrite,
    MethodChange,
    PathPattern,
    PathPrefix,
    PathRemovePrefix,
    PathSet,
    QueryParameter,
    QueryRemove,
    QueryRouteValue,
    RequestHeader,
    RequestHeaderRemove,
    RequestHeaderRouteValue,
    RequestHeadersAllowed,
    ResponseHeader,
    ResponseHeaderRemove,
    ResponseHeadersAllowed,
    Transforms,
    TransformSettings,
)
from fastapi_proxy_di.transforms.headers import EditableFields, HeaderFields
from fastapi_proxy_di.transforms.json_body import JsonBody
from fastapi_proxy_di.transforms.pipeline import Transform
from fastapi_proxy_di.transforms.views import InboundRequest, OutboundRequest, OutboundResponse

__all__ = [
    "CookieDomain",
    "CookiePath",
    "EditableFields",
    "HeaderFields",
    "InboundRequest",
    "JsonBody",
    "LocationRewrite",
    "MethodChange",
    "OutboundRequest",
    "OutboundResponse",
    "PathPattern",
    "PathPrefix",
    "PathRemovePrefix",
    "PathSet",
    "QueryParameter",
    "QueryRemove",
    "QueryRouteValue",
    "RequestHeader",
    "RequestHeaderRemove",
    "RequestHeaderRouteValue",
    "RequestHeadersAllowed",
    "ResponseHeader",
    "ResponseHeaderRemove",
    "ResponseHeadersAllowed",
    "Transform",
    "TransformSettings",
    "Transforms",
]
