"""Finds the source of each effective setting.

Gives sources only, never values. Validates nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource

from fastapi_proxy_di.settings.fields import LISTS, dotted, standard_class, variable
from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.sources import (
    FILE_SOURCES,
    ClassSource,
    DotEnvSource,
    EnvironmentSource,
    settings_sources,
)

__all__ = ["effective_sources", "origin", "overridden_fields"]

Path = tuple[str, ...]


def effective_sources(settings_cls: type[LayeredSettings]) -> dict[str, str]:
    """Give the source of each field's value.

    Args:
        settings_cls: A class with a name.

    Returns:
        Dotted field to source: a variable with ``(environment)``, ``(.env)`` or
        ``(secrets directory)``, the file of TOML, YAML or JSON, ``class default`` or
        ``default``.

    Raises:
        SettingsError: A file exists and cannot be read.
    """
    found: dict[Path, str] = {}
    for path, source in _given(settings_cls):
        found.setdefault(path, _label(source, settings_cls, path))
    standard = dict(_default_leaves(standard_class(settings_cls)))
    for path, value in _default_leaves(settings_cls):
        # A field that a source has filled with parts has no default of its own.
        if not any(given[: len(path)] == path for given in found):
            same = path in standard and standard[path] == value
            found[path] = "default" if same else "class default"
    return {dotted(path): found[path] for path in sorted(found)}


def overridden_fields(settings_cls: type[LayeredSettings]) -> dict[str, str]:
    """Give the fields that a file sets in vain, because a source before the file sets them.

    Args:
        settings_cls: A class with a name.

    Returns:
        Dotted field to the source that sets it, as `effective_sources` names sources.

    Raises:
        SettingsError: A file exists and cannot be read.
    """
    first: dict[Path, PydanticBaseSettingsSource] = {}
    found: dict[str, str] = {}
    for path, source in _given(settings_cls):
        setter = first.setdefault(path, source)
        if setter is not source:
            found[dotted(path)] = _label(setter, settings_cls, path)
    return found


def origin(settings_cls: type[LayeredSettings], location: Sequence[int | str]) -> str | None:
    """Say where the value of a field that has a fault is written.

    Args:
        settings_cls: The class.
        location: The field, as in a validation error.

    Returns:
        A variable, also ``<variable> in .env`` or ``in secrets directory``; ``in <file>``;
        ``class <name>`` for a default of a declared class; ``None`` if the value is nowhere.
    """
    parts = tuple(str(part).lower() for part in location)
    for path, source in _given(settings_cls):
        if path == parts[: len(path)] or parts == path[: len(parts)]:
            label = _label(source, settings_cls, path)
            if not isinstance(source, EnvSettingsSource):
                return f"in {label}"
            name, _, kind = label.partition(" (")
            return name if kind == "environment)" else f"{name} in {kind.removesuffix(')')}"
    field = settings_cls.model_fields.get(str(location[0]))
    standard = standard_class(settings_cls).model_fields.get(str(location[0]))
    if field is None or standard is None or field.default == standard.default:
        return None
    return f"class {settings_cls.__name__}"


def _given(
    settings_cls: type[LayeredSettings],
) -> Iterator[tuple[Path, PydanticBaseSettingsSource]]:
    """Give each value of each source, the source that wins first."""
    config = settings_cls.model_config
    sources = settings_sources(
        settings_cls,
        {},
        config.get("env_file"),
        config.get("env_file_encoding"),
        config.get("secrets_dir"),
    )
    for source in sources:
        if not isinstance(source, ClassSource):
            for path in _leaves(source()):
                yield path, source


def _leaves(values: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    for name, value in values.items():
        path = (*above, name.lower())
        # A single destination may be given as an object, without a list.
        if isinstance(value, dict) and value and path[0] not in LISTS:
            yield from _leaves(value, path)
        else:
            yield path


def _default_leaves(settings_cls: type[LayeredSettings]) -> Iterator[tuple[Path, Any]]:
    for name, field in settings_cls.model_fields.items():
        default = field.default
        parts = default.model_dump() if isinstance(default, BaseModel) else default
        if isinstance(parts, dict) and parts:
            yield from (((name, part.lower()), value) for part, value in parts.items())
        elif not field.is_required():
            yield (name,), default


def _label(
    source: PydanticBaseSettingsSource, settings_cls: type[LayeredSettings], path: Path
) -> str:
    if isinstance(source, EnvSettingsSource):
        names = [variable(settings_cls, path[:length]) for length in range(len(path), 0, -1)]
        # Set by a variable of its own, or as part of its parent's JSON.
        set_by = next((name for name in names if name.lower() in source.env_vars), names[0])
        kind = "environment" if isinstance(source, EnvironmentSource) else "secrets directory"
        return f"{set_by} ({'.env' if isinstance(source, DotEnvSource) else kind})"
    key = next(key for key, kind in FILE_SOURCES.items() if isinstance(source, kind))
    return str(settings_cls.model_config.get(key))
