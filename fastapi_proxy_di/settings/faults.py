"""Faults of settings, told to people: which upstream, field and variable, what is right.

Never shows a value that may be a secret. Also names variables that nothing reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.sources import HEADER_FIELDS, Undecodable, dotenv_variables
from fastapi_proxy_di.settings.upstream import (
    Mention,
    UpstreamSettings,
    env_prefix,
    prefix_of,
    settings_class,
)

__all__ = [
    "describe_faults",
    "describe_late_fault",
    "load_all",
    "load_upstream",
    "read_all",
    "settings_error",
    "unknown_variables",
]

_SCALARS: Final = (str, int, float)
# Their values may be secrets, or hold some.
_UNSHOWN: Final = frozenset(
    {"destinations", "request_headers", "response_headers", "transforms", "affinity"}
)
_LISTS: Final = frozenset({"destinations", "transforms"})
_KUBERNETES: Final = r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?"
"""What it adds to ``UPSTREAM_BILLING_`` for a service of the name ``upstream-billing``."""
_DESTINATIONS: Final = r"UPSTREAM_(\w+)_DESTINATIONS"


def load_all(
    mentions: Mapping[str, Mention],
) -> dict[str, UpstreamSettings]:
    """Validate the settings of all upstreams of an app.

    Args:
        mentions: By name: the name again, a declared class, or an instance, which is taken
            as it is.

    Returns:
        The settings by name, in the same order.

    Raises:
        SettingsError: Every fault of every upstream, one a line.
    """
    loaded, faults = read_all(mentions)
    if faults:
        raise settings_error(faults)
    return loaded


def read_all(mentions: Mapping[str, Mention]) -> tuple[dict[str, UpstreamSettings], list[str]]:
    """Validate the settings of all upstreams, for who may find further faults.

    Returns:
        The settings that are valid, by name; and the faults of the others, one a line.
    """
    faults: list[str] = []
    loaded: dict[str, UpstreamSettings] = {}
    prefixes: dict[str, str] = {}
    for name, mention in mentions.items():
        try:
            found = settings_class(mention) if isinstance(mention, str) else mention
            if found.name != name:
                raise SettingsError(f"is given settings that are named {found.name!r}")
            settings_cls = found if isinstance(found, type) else type(found)
            prefix = env_prefix(settings_cls)
            other = prefixes.setdefault(prefix, name)
            if other != name:
                raise SettingsError(
                    f"has the same variables ({prefix}*) as upstream {other!r}; rename one"
                )
            loaded[name] = settings_cls() if isinstance(found, type) else found
        except ValidationError as error:
            faults += describe_faults(error, settings_cls)
            faults += _clues(error, settings_cls, mentions)
        except SettingsError as error:
            faults.append(f"upstream {name!r}: {error}")
    return loaded, faults


def settings_error(faults: Iterable[str]) -> SettingsError:
    """Put faults into the one error that tells them."""
    return SettingsError("\n".join(("Settings are not valid:", *(f"- {f}" for f in faults))))


def load_upstream(name: str) -> UpstreamSettings:
    """Read the settings of an upstream that is only named.

    Raises:
        SettingsError: It is not a name, or there are faults; all of them are named.
    """
    return load_all({name: name})[name]


def describe_faults(error: ValidationError, settings_cls: type[UpstreamSettings]) -> list[str]:
    """Tell each fault of one upstream in a line.

    Args:
        error: What constructing ``settings_cls`` raised.
        settings_cls: Gives name and prefix.

    Returns:
        Lines such as ``upstream 'billing': policy (UPSTREAM_BILLING_POLICY): …``.
    """
    return [_line(details, settings_cls) for details in error.errors(include_url=False)]


def describe_late_fault(error: ValueError, settings_cls: type[UpstreamSettings]) -> str:
    """Tell a fault that only shows when the settings are used: a module that is not there.

    Args:
        error: Its text begins with the field, e.g. ``tls.ca_file: …``.
        settings_cls: Gives name and prefix.
    """
    field, _, text = str(error).partition(": ")
    name = variable(settings_cls, field.split("."))
    return f"upstream {settings_cls.name!r}: {field} ({name}): {text}"


def _clues(
    error: ValidationError, settings_cls: type[UpstreamSettings], names: Iterable[str]
) -> Iterator[str]:
    """Name variables that are set and may have been meant."""
    prefix = env_prefix(settings_cls)
    for text in unknown_variables(settings_cls, os.environ, names):
        if not re.fullmatch(_KUBERNETES, text.split()[0].removeprefix(prefix)):
            yield text
    if any(one["type"] == "missing" and one["loc"] == ("destinations",) for one in error.errors()):
        asked_for = {prefix, *map(prefix_of, names)}
        set_ones = {
            match[1].lower(): match[0]
            for variable_name, value in os.environ.items()
            if value and (match := re.fullmatch(_DESTINATIONS, variable_name.upper()))
            if prefix_of(match[1]) not in asked_for
        }
        near = _near(settings_cls.name.replace("-", "_"), list(set_ones), 0.7)
        if near:
            yield (
                f"{set_ones[near]} is set; did you mean upstream {near!r} "
                f"instead of {settings_cls.name!r}?"
            )


def _line(details: ErrorDetails, settings_cls: type[UpstreamSettings]) -> str:
    location = details["loc"]
    subject = f"upstream {settings_cls.name!r}: "
    if location:
        subject += f"{dotted(location)} ({variable(settings_cls, location)}): "
    return subject + _what(details, settings_cls)


def _what(details: ErrorDetails, settings_cls: type[UpstreamSettings]) -> str:
    kind, location, given = details["type"], details["loc"], details["input"]
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "missing":
        return "is required; set it" + (
            ", e.g. http://10.0.0.1:8080" if location == ("destinations",) else ""
        )
    if kind == "extra_forbidden":
        known = [name for name, _ in _fields_at(settings_cls, location[:-1])]
        return _with_near("is not a field", str(location[-1]), known)
    if isinstance(given, Undecodable):
        return "starts like JSON and cannot be decoded; check its brackets and quotes"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _not_a_mapping(settings_cls, location)
    message = details["msg"][:1].lower() + details["msg"][1:]
    if kind == "int_parsing" and str(location[-1]).endswith("_bytes"):
        message = "is a number of bytes, e.g. 10000000"
    shown = location[0] in UpstreamSettings.model_fields and location[0] not in _UNSHOWN
    return f"{message}, got {given!r}" if shown and isinstance(given, _SCALARS) else message


def _not_a_mapping(settings_cls: type[UpstreamSettings], location: tuple[int | str, ...]) -> str:
    names = [name for name, _ in _fields_at(settings_cls, location)]
    example = names[0].upper() if names else "NAME"
    return (
        f"has parts: set them one by one, e.g. {variable(settings_cls, location)}__{example},"
        " or all as a JSON object"
    )


def dotted(location: Iterable[int | str]) -> str:
    """Write a field as in code, e.g. ``health.path``."""
    return ".".join(str(part) for part in location)


def variable(settings_cls: type[UpstreamSettings], location: Iterable[int | str]) -> str:
    """Name the environment variable that sets a field; below a list, the list's own."""
    names: list[str] = []
    for part in location:
        if isinstance(part, int):
            break
        names.append(part.upper().replace("-", "_"))
    return env_prefix(settings_cls) + "__".join(names)


def _fields_at(
    model: type[BaseModel], location: Iterable[int | str]
) -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Give the fields of the model that a location leads to, nested models beside them."""
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
        yield name, nested_model(field.annotation)


def _kind(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """Find the model in a field's annotation, through unions and collections."""
    return next(_models_in(annotation), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, BaseModel):
            yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _with_near(message: str, name: str, known: Iterable[str]) -> str:
    near = _near(name.lower(), list(known), 0.7)
    return f"{message}; did you mean {near!r}?" if near else message


def _near(name: str, known: Sequence[str], cutoff: float) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415  # only who mistyped waits for it

    return next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), None)


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
        environ: Usually ``os.environ``. The class's ``.env`` files are looked at as well.
        other_names: The app's other upstreams; what one of them reads is not named.

    Returns:
        One text for each variable, with the near field's variable where there is one.
    """
    prefix = env_prefix(settings_cls)
    parts = dict(_fields_at(settings_cls, ()))
    suffixes = list(_suffixes(parts))
    others = [prefix_of(name) for name in other_names if name != settings_cls.name]
    warned: list[str] = []
    for name, value in sorted({**dotenv_variables(settings_cls), **environ}.items()):
        upper = name.upper()
        if not value or not upper.startswith(prefix) or _reads(prefix, parts, upper):
            continue
        if any(_owns(other, prefix, parts, upper) for other in others):
            continue
        # One wrong letter in six is 0.83; Kubernetes' SERVICE_HOST is 0.8 of PRESERVE_HOST.
        near = _near(upper[len(prefix) :], suffixes, 0.82)
        hint = f"; did you mean {prefix}{near}?" if near else ""
        warned.append(f"{upper} sets nothing of upstream {settings_cls.name!r}{hint}")
    return warned


def _suffixes(parts: Mapping[str, type[BaseModel] | None]) -> Iterator[str]:
    for name, model in parts.items():
        yield name.upper()
        if model is not None and name not in _LISTS:
            yield from (f"{name}__{part}".upper() for part in model.model_fields)


def _reads(prefix: str, parts: Mapping[str, type[BaseModel] | None], variable_name: str) -> bool:
    """Whether validation sees the variable; then an unknown nested name is a fault there."""
    top, nested, part = variable_name[len(prefix) :].lower().partition("__")
    has_parts = top in HEADER_FIELDS or (parts.get(top) is not None and top not in _LISTS)
    # All parts are one level deep; below a part that is set itself, nothing is read.
    return top in parts and (not nested or (has_parts and "__" not in part))


def _owns(
    other: str, prefix: str, parts: Mapping[str, type[BaseModel] | None], variable_name: str
) -> bool:
    return variable_name.startswith(other) and (
        len(other) > len(prefix) or _reads(other, parts, variable_name)
    )
