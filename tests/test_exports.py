"""The public names: complete, sorted, documented, and one version."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest

import fastapi_proxy_di

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PROMISED = frozenset(
    {
        "AffinitySettings",
        "Balancer",
        "DestinationSettings",
        "Destinations",
        "EjectionSettings",
        "ForwardOptions",
        "ForwardedSettings",
        "HealthSettings",
        "LimitSettings",
        "NoAvailableDestination",
        "ProxyError",
        "ProxyNotStarted",
        "RequestBodyConsumed",
        "RequestBodyTooLarge",
        "RetrySettings",
        "SettingsError",
        "TimeoutSettings",
        "TlsSettings",
        "Upstream",
        "UpstreamConnectError",
        "UpstreamProtocolError",
        "UpstreamSettings",
        "UpstreamTimeout",
        "WebSocketSettings",
        "proxy_lifespan",
        "proxy_router",
    }
)


def test_exports_are_sorted_and_exist() -> None:
    """``__all__`` is in order, without repeats, and every name in it is there."""
    exported = fastapi_proxy_di.__all__

    assert list(exported) == sorted(set(exported))
    assert all(hasattr(fastapi_proxy_di, name) for name in exported)


def test_exports_are_all_there_is() -> None:
    """Names come when they are asked for; others are refused as in any module."""
    assert set(dir(fastapi_proxy_di)) >= set(fastapi_proxy_di.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = fastapi_proxy_di.nonsense


def test_exports_hold_every_promised_name() -> None:
    """No name that users rely on can vanish unnoticed."""
    assert set(fastapi_proxy_di.__all__) >= PROMISED


def test_exports_have_docstrings() -> None:
    """Hovering over a public class or function says what it gives."""
    undocumented = [
        name
        for name in fastapi_proxy_di.__all__
        if (inspect.isclass(value := getattr(fastapi_proxy_di, name)) or inspect.isroutine(value))
        and not value.__doc__
    ]

    assert undocumented == []


def test_reference_documents_every_export() -> None:
    """The reference lists exactly the public names."""
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    documented = set(re.findall(r"^::: fastapi_proxy_di\.(\w+)$", pages, re.MULTILINE))

    assert documented == set(fastapi_proxy_di.__all__) - {"__version__"}


def test_version_is_the_distribution_version() -> None:
    """There is one version."""
    assert fastapi_proxy_di.__version__ == importlib.metadata.version("fastapi-proxy-di")
