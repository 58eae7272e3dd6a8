"""The rows of ``check`` that say where each setting that is no default came from.

Secrets stay masked. Fields that a declared class adds are listed without their values, since each
may be a secret.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from fastapi_proxy_di.settings import (
    DestinationSettings,
    ProxySettings,
    UpstreamSettings,
    effective_sources,
)

__all__ = ["given_in_code", "origins"]

_OWN = "(own field)"
_DEFAULTS = ("default", "class default")


def origins(
    name: str, settings: ProxySettings | UpstreamSettings, base: type[BaseModel]
) -> list[list[str]]:
    """Give upstream, setting, value and source of each setting of a class that is no default.

    Args:
        name: What the rows are of.
        settings: The settings, made without arguments.
        base: The class of this package, whose fields are shown.
    """
    rows = []
    for field, source in effective_sources(type(settings)).items():
        if field.partition(".")[0] not in base.model_fields:
            rows.append([name, field, _OWN, source])
        elif source != "default":
            value: object = settings
            for part in field.split("."):
                value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
            rows.append([name, field, _shown(value), source])
    return rows


def given_in_code(
    name: str, settings: ProxySettings | UpstreamSettings, base: type[BaseModel]
) -> list[list[str]]:
    """Give the same rows for settings that code has made, whole fields each.

    An object does not say which of its values were arguments. So a field that a variable or a
    file sets as well may be either.

    Args:
        name: What the rows are of.
        settings: The settings, made with arguments.
        base: As for `origins`.
    """
    others: dict[str, str] = {}
    for field, source in effective_sources(type(settings)).items():
        if source not in _DEFAULTS:
            others.setdefault(field.partition(".")[0], source)
    rows = []
    for field, about in type(settings).model_fields.items():
        value: object = getattr(settings, field)
        if value != about.default:
            source = f"code, or {others[field]}" if field in others else "code"
            rows.append(
                [name, field, _shown(value) if field in base.model_fields else _OWN, source]
            )
    return rows


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return value.shown if isinstance(value, DestinationSettings) else str(value)
