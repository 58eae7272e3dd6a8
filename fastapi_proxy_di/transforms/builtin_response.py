"""The response transforms of the settings: each becomes a function, made once at start."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from fastapi_proxy_di.settings.transforms import (
    CookieDomain,
    CookiePath,
    LocationRewrite,
    ResponseHeader,
    ResponseHeaderRemove,
    ResponseHeadersAllowed,
    When,
)
from fastapi_proxy_di.transforms.cookies import rewrite_domain, rewrite_path
from fastapi_proxy_di.transforms.header_edits import allow, remove, set_or_append
from fastapi_proxy_di.transforms.views import OutboundResponse

ResponseTransform = Callable[[OutboundResponse], object]
"""A function that changes a response before the client gets it."""

ResponseTransformSettings = (
    ResponseHeader
    | ResponseHeaderRemove
    | ResponseHeadersAllowed
    | LocationRewrite
    | CookieDomain
    | CookiePath
)


def response_transform(settings: ResponseTransformSettings) -> ResponseTransform:
    """Make the function of one response transform."""
    match settings:
        case ResponseHeader():
            return _only(settings.when, set_or_append(settings))
        case ResponseHeaderRemove():
            return _only(settings.when, remove(settings.name))
        case ResponseHeadersAllowed():
            return allow(settings.names)
        case LocationRewrite():
            return _location(settings)
        case CookieDomain():
            return _cookie_domain(settings)
        case CookiePath():
            return _cookie_path(settings)
    assert_never(settings)


def _only(when: When, transform: ResponseTransform) -> ResponseTransform:
    if when == "always":
        return transform
    failure = when == "failure"

    def conditional(response: OutboundResponse) -> None:
        if (response.status >= 400) is failure:
            transform(response)

    return conditional


def _location(settings: LocationRewrite) -> ResponseTransform:
    if settings.match is not None and settings.replace is not None:
        match, replacement = settings.match.encode("ascii"), settings.replace.encode("ascii")

        def replace(value: bytes, response: OutboundResponse) -> bytes:
            return replacement + value[len(match) :] if value.startswith(match) else value

        return _each(b"location", replace)

    return OutboundResponse.rewrite_redirects


def _cookie_domain(settings: CookieDomain) -> ResponseTransform:
    match = None if settings.match is None else settings.match.lower().lstrip(".").encode("ascii")
    replacement = None if settings.set is None else settings.set.encode("ascii")

    def rewrite(value: bytes, response: OutboundResponse) -> bytes:
        return rewrite_domain(value, match, replacement)

    return _each(b"set-cookie", rewrite)


def _cookie_path(settings: CookiePath) -> ResponseTransform:
    match = None if settings.match is None else settings.match.rstrip("/").encode("ascii")
    replacement = None if settings.set is None else settings.set.rstrip("/").encode("ascii")

    def rewrite(value: bytes, response: OutboundResponse) -> bytes:
        return rewrite_path(
            value,
            response.base_path if match is None else match,
            response.inbound.mount.rstrip("/").encode("latin-1")
            if replacement is None
            else replacement,
        )

    return _each(b"set-cookie", rewrite)


def _each(name: bytes, rewrite: Callable[[bytes, OutboundResponse], bytes]) -> ResponseTransform:
    def transform(response: OutboundResponse) -> None:
        response.headers.raw = [
            (name, rewrite(pair[1], response)) if pair[0] == name else pair
            for pair in response.headers.raw
        ]

    return transform
