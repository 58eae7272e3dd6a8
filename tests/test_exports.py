"""The public names: complete, sorted, documented, and one version."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import fastapi_proxy_di
from fastapi_proxy_di import testing, transforms

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
MODULES = [fastapi_proxy_di, testing, transforms]
PROMISED = frozenset(
    {
        "AffinitySettings",
        "Balancer",
        "BalancingPolicy",
        "DestinationDown",
        "DestinationEjected",
        "DestinationSettings",
        "DestinationUp",
        "Destinations",
        "EjectionSettings",
        "Event",
        "ForwardOptions",
        "ForwardedSettings",
        "HealthSettings",
        "Lease",
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
        "proxy_app",
        "proxy_lifespan",
        "proxy_router",
    }
)


def test_exports_are_sorted_and_exist() -> None:
    """``__all__`` is sorted, without repeats, and every name exists."""
    exported = fastapi_proxy_di.__all__

    assert list(exported) == sorted(set(exported))
    assert all(hasattr(fastapi_proxy_di, name) for name in exported)


def test_exports_hold_every_promised_name() -> None:
    """No name that users rely on can be removed unnoticed."""
    assert set(fastapi_proxy_di.__all__) >= PROMISED


def documented_members(public: type) -> Iterator[tuple[str, str | None]]:
    """Give the public methods and properties that a class of ours has or inherits from ours."""
    for base in public.__mro__:
        if base.__module__.startswith("fastapi_proxy_di"):
            for name, value in vars(base).items():
                if name.startswith("_") or isinstance(value, type):
                    continue
                if isinstance(value, property | staticmethod | classmethod) or callable(value):
                    yield name, inspect.getdoc(getattr(public, name))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_exports_have_docstrings(module: ModuleType) -> None:
    """Hovering over a public name, or over a member of it, says what it gives."""
    missing: list[str] = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            missing += [
                f"{name}.{member}" for member, text in documented_members(value) if not text
            ]
        if (inspect.isclass(value) or inspect.isroutine(value)) and not value.__doc__:
            missing.append(name)

    assert missing == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_attributes_of_values_are_described(module: ModuleType) -> None:
    """Fields of dataclasses in the class's docstring, those of settings in ``Field``."""
    missing: list[str] = []
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value) or not value.__module__.startswith("fastapi_proxy_di"):
            continue
        text = "".join(inspect.getdoc(base) or "" for base in value.__mro__)
        if dataclasses.is_dataclass(value):
            fields = {field.name for field in dataclasses.fields(value)}
        elif issubclass(value, BaseModel):
            fields = {name for name, field in value.model_fields.items() if not field.description}
        else:
            continue
        missing += [
            f"{name}.{field}"
            for field in sorted(fields)
            if not field.startswith("_") and not re.search(rf"\b{field}\b", text)
        ]

    assert missing == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_reference_documents_every_export(module: ModuleType) -> None:
    """The reference lists exactly the public names."""
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    prefix = re.escape(module.__name__)
    documented = set(re.findall(rf"^::: {prefix}\.(\w+)$", pages, re.MULTILINE))

    assert documented == set(module.__all__) - {"__version__"}


def test_version_is_the_distribution_version() -> None:
    """There is one version."""
    assert fastapi_proxy_di.__version__ == importlib.metadata.version("fastapi-proxy-di")
