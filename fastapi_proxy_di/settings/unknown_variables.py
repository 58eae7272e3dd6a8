"""Variables that have an upstream's prefix and set nothing."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from fastapi_proxy_di.settings.fields import env_prefix, fields_at
from fastapi_proxy_di.settings.names import prefix_of
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.settings.sources import HEADER_FIELDS, dotenv_variables
from fastapi_proxy_di.settings.upstream import UpstreamSettings

__all__ = ["unknown_variables"]

_LISTS: Final = frozenset({"destinations", "transforms"})

Fields = Mapping[str, type[BaseModel] | None]


def unknown_variables(
    settings_cls: type[UpstreamSettings],
    environ: Mapping[str, str],
    other_names: Iterable[str] = (),
) -> list[str]:
    """Name the variables with the upstream's prefix that set nothing.

    They are worth a warning, not a fault: Kubernetes service links and upstreams of other
    apps share prefixes. Unknown nested names are faults of the settings already.

    Args:
        settings_cls: The upstream.
        environ: Usually ``os.environ``. The class's ``.env`` files are read as well.
        other_names: The app's other upstreams; variables that they read are not named.

    Returns:
        One text for each variable, with the most similar variable where there is one.
    """
    prefix = env_prefix(settings_cls)
    fields = dict(fields_at(settings_cls, ()))
    suffixes = list(_suffixes(fields))
    others = [prefix_of(name) for name in other_names if name != settings_cls.name]
    unknown: list[str] = []
    for name, value in sorted({**dotenv_variables(settings_cls), **environ}.items()):
        upper = name.upper()
        if not value or not upper.startswith(prefix) or _reads(prefix, fields, upper):
            continue
        if any(_belongs_to(other, prefix, fields, upper) for other in others):
            continue
        # One wrong letter in six is 0.83; Kubernetes' SERVICE_HOST is 0.8 of PRESERVE_HOST.
        similar = similar_name(upper[len(prefix) :], suffixes, 0.82)
        hint = f"; did you mean {prefix}{similar}?" if similar else ""
        unknown.append(f"{upper} sets nothing of upstream {settings_cls.name!r}{hint}")
    return unknown


def _suffixes(fields: Fields) -> Iterator[str]:
    for name, model in fields.items():
        yield name.upper()
        if model is not None and name not in _LISTS:
            yield from (f"{name}__{part}".upper() for part in model.model_fields)


def _reads(prefix: str, fields: Fields, variable_name: str) -> bool:
    """Whether validation gets the variable; an unknown nested name is then a fault there."""
    top, nested, part = variable_name[len(prefix) :].lower().partition("__")
    has_parts = top in HEADER_FIELDS or (fields.get(top) is not None and top not in _LISTS)
    # Nested models have plain fields only, so deeper names are not read.
    return top in fields and (not nested or (has_parts and "__" not in part))


def _belongs_to(other: str, prefix: str, fields: Fields, variable_name: str) -> bool:
    return variable_name.startswith(other) and (
        len(other) > len(prefix) or _reads(other, fields, variable_name)
    )
