"""The fields of settings models: how they are written in code and as variables.

Walks annotations only; reads no value.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.proxy import ProxySettings
from fastapi_proxy_di.settings.upstream import UpstreamSettings

__all__ = [
    "LISTS",
    "dotted",
    "env_prefix",
    "fields_at",
    "standard_class",
    "subject_of",
    "variable",
]

LISTS: Final = frozenset({"destinations", "transforms"})
"""The settings that are lists of models: their parts have no variables."""


def env_prefix(settings_cls: type[LayeredSettings]) -> str:
    """Give the prefix of the class's variables, e.g. ``UPSTREAM_BILLING_``."""
    return settings_cls.model_config.get("env_prefix", "")


def standard_class(settings_cls: type[LayeredSettings]) -> type[LayeredSettings]:
    """Give the class of this package that the class is declared from."""
    return UpstreamSettings if issubclass(settings_cls, UpstreamSettings) else ProxySettings


def subject_of(settings: LayeredSettings | type[LayeredSettings]) -> str:
    """Name what the settings are of, as messages do: ``upstream 'billing'``.

    Args:
        settings: The settings, or their class as long as there are none. Settings may have another
            name than their class (`UpstreamSettings.named`).
    """
    name = getattr(settings, "name", None)
    return ProxySettings.__name__ if name is None else f"upstream {name!r}"


def dotted(location: Iterable[int | str]) -> str:
    """Write a field as in code, e.g. ``health.path``."""
    return ".".join(str(part) for part in location)


def variable(settings_cls: type[LayeredSettings], location: Iterable[int | str]) -> str:
    """Give the environment variable that sets a field; for an item of a list, the list's."""
    names: list[str] = []
    for part in location:
        if isinstance(part, int):
            break
        names.append(part.upper().replace("-", "_"))
    return env_prefix(settings_cls) + "__".join(names)


def fields_at(
    model: type[BaseModel], location: Iterable[int | str]
) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Give the fields of the model at a location, each with its own nested model, if any."""
    models = [model]
    for part in location:
        if isinstance(part, str) and models:
            field = models[0].model_fields.get(part)
            # In a union the tag comes before the field.
            models = (
                [m for m in models if _kind(m) == part]
                if field is None
                else [*_models_in(field.annotation)]
            )
    for name, field in models[0].model_fields.items() if models else ():
        yield name, next(_models_in(field.annotation), None)


def _kind(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models in an annotation, through unions and collections."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models_in(argument)
