"""Variables that have the prefix of settings and set nothing."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from fastapi_proxy_di.settings.fields import LISTS, env_prefix, fields_at, subject_of
from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.names import prefix_of
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.settings.sources import HEADER_FIELDS, dotenv_variables

__all__ = ["unknown_variables"]

_SIBLING: Final = re.compile(r"UPSTREAM_\w+_DESTINATIONS")
_SERVICE_LINK: Final = re.compile(
    r"(\w+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
)
"""The variables of a Kubernetes service link, and of ``docker run --link``."""
_ADDRESSES: Final = frozenset(
    f"{word}{end}"
    for word in ("ADDRESS", "BACKEND", "ENDPOINT", "HOST", "ORIGIN", "SERVER", "TARGET", "URL")
    for end in ("", "S", "ES")
)
"""Names that other programs have for destinations."""

Fields = Mapping[str, type[BaseModel] | None]


def unknown_variables(
    settings_cls: type[LayeredSettings],
    environ: Mapping[str, str],
    other_names: Iterable[str] = (),
) -> list[str]:
    """Name the variables with the prefix of the settings that set nothing.

    They are worth a warning, not a fault, because programs share prefixes; with
    ``strict_environment`` they are faults. Variables of Kubernetes service links and of other
    upstreams are left out. Unknown nested names are faults of the settings already.

    Args:
        settings_cls: The class of the settings.
        environ: Usually ``os.environ``. The class's ``.env`` files are read as well.
        other_names: The app's other upstreams; variables that they read are not named.

    Returns:
        One text for each variable, with the most similar variable where there is one.
    """
    prefix = env_prefix(settings_cls)
    fields = dict(fields_at(settings_cls, ()))
    suffixes = list(_suffixes(fields))
    others = {prefix_of(name) for name in other_names} - {prefix}
    variables = {**dotenv_variables(settings_cls), **environ}
    given = {name.upper(): value for name, value in variables.items() if value}
    # What has destinations is an upstream, also if this app does not mention it.
    siblings = (name.removesuffix("DESTINATIONS") for name in given if _SIBLING.fullmatch(name))
    others |= {sibling for sibling in siblings if sibling != prefix}
    unknown: list[str] = []
    for name in sorted(given):
        if (
            not name.startswith(prefix)
            or _reads(prefix, fields, name)
            or _is_service_link(name, given)
            or any(_belongs_to(other, prefix, fields, name) for other in others)
        ):
            continue
        hint = _hint(prefix, name[len(prefix) :], suffixes)
        unknown.append(f"{name} sets nothing of {subject_of(settings_cls)}{hint}")
    return unknown


def _hint(prefix: str, rest: str, suffixes: list[str]) -> str:
    for suffix in suffixes:
        if "__" in suffix and rest == suffix.replace("__", "_"):
            return f"; write nested settings with two underscores: {prefix}{suffix}"
    if rest in _ADDRESSES and "DESTINATIONS" in suffixes:
        return f"; did you mean {prefix}DESTINATIONS?"
    # One wrong letter in six is 0.83; Kubernetes' SERVICE_HOST is 0.8 of PRESERVE_HOST.
    similar = similar_name(rest, suffixes, 0.82)
    return f"; did you mean {prefix}{similar}?" if similar else ""


def _is_service_link(name: str, given: Mapping[str, str]) -> bool:
    """Whether Kubernetes has set a variable for a service, ``upstream-billing`` for example."""
    link = _SERVICE_LINK.fullmatch(name)
    return link is not None and f"{link[1]}_SERVICE_HOST" in given


def _suffixes(fields: Fields) -> Iterator[str]:
    for name, model in fields.items():
        yield name.upper()
        if model is not None and name not in LISTS:
            yield from (f"{name}__{part}".upper() for part in model.model_fields)


def _reads(prefix: str, fields: Fields, variable_name: str) -> bool:
    """Whether validation gets the variable; an unknown nested name is then a fault there."""
    path = tuple(variable_name[len(prefix) :].lower().split("__"))
    if path[:-1] in HEADER_FIELDS:
        return True
    top, *parts = path
    has_parts = fields.get(top) is not None and top not in LISTS
    # Nested models have plain fields and headers only, so deeper names are not read.
    return top in fields and (not parts or (has_parts and len(parts) == 1))


def _belongs_to(other: str, prefix: str, fields: Fields, variable_name: str) -> bool:
    return variable_name.startswith(other) and (
        len(other) > len(prefix) or _reads(other, fields, variable_name)
    )
