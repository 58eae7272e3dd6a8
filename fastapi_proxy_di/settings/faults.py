"""Texts of faults: upstream, field and variable, what is wrong and what is right.

A text never shows a value that may be a secret.
"""

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fastapi_proxy_di.settings.fields import (
    dotted,
    fields_at,
    standard_class,
    subject_of,
    variable,
)
from fastapi_proxy_di.settings.layered import LayeredSettings
from fastapi_proxy_di.settings.plain_messages import hint, plain_message
from fastapi_proxy_di.settings.provenance import origin
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.settings.sources import HEADER_FIELDS, Undecodable
from fastapi_proxy_di.settings.text import BROKEN_JSON

__all__ = ["describe_faults", "describe_late_fault", "is_hidden"]

_SCALARS: Final = (str, int, float)
_HIDDEN: Final = (
    ("destinations",),
    ("request_headers",),
    ("response_headers",),
    ("transforms",),
    ("affinity",),
    ("cluster", "key"),
    ("cluster", "store"),
    ("health", "headers"),
)
"""Settings whose values may be secrets, or hold some."""


def describe_faults(error: ValidationError, settings_cls: type[LayeredSettings]) -> list[str]:
    """Describe each fault of the settings in a line.

    Args:
        error: What constructing ``settings_cls`` raised.
        settings_cls: The class of the settings.

    Returns:
        Lines such as ``upstream 'billing': policy (UPSTREAM_BILLING_POLICY): …``.
    """
    return [_line(details, settings_cls) for details in error.errors(include_url=False)]


def describe_late_fault(error: ValueError, settings: LayeredSettings) -> str:
    """Describe a fault that shows only when the settings are used, e.g. a missing module.

    Args:
        error: Its text begins with the field, e.g. ``tls.ca_file: …``.
        settings: The settings.
    """
    field, _, text = str(error).partition(": ")
    location = field.split(".")
    settings_cls = type(settings)
    place = origin(settings_cls, location) or variable(settings_cls, location)
    return f"{subject_of(settings)}: {field} ({place}): {text}"


def _line(details: ErrorDetails, settings_cls: type[LayeredSettings]) -> str:
    location = details["loc"]
    subject = f"{subject_of(settings_cls)}: "
    if location:
        place = None if details["type"] == "missing" else origin(settings_cls, location)
        subject += f"{dotted(location)} ({place or variable(settings_cls, location)}): "
    return subject + _message(details, settings_cls) + hint(details["input"])


def _message(details: ErrorDetails, settings_cls: type[LayeredSettings]) -> str:
    kind, location, given = details["type"], details["loc"], details["input"]
    shown = (
        isinstance(given, _SCALARS)
        and bool(location)
        and location[0] in standard_class(settings_cls).model_fields
        and not is_hidden(location)
    )
    if kind == "value_error":
        message = str(details["ctx"]["error"])
        return message if not shown or repr(given) in message else f"{message}, got {given!r}"
    if kind == "missing":
        return "is required; set it" + (
            ", e.g. http://10.0.0.1:8080" if location == ("destinations",) else ""
        )
    if kind == "extra_forbidden":
        known = [name for name, _ in fields_at(settings_cls, location[:-1])]
        similar = similar_name(str(location[-1]).lower(), known)
        meant = f"did you mean {similar!r}? There" if similar else "there"
        section = (
            "; the settings stand at the top of their file, not in a section"
            if location == (getattr(settings_cls, "name", None),)
            else ""
        )
        return f"is not a field{section}; {meant} are {', '.join(known)}"
    if isinstance(given, Undecodable):
        return BROKEN_JSON
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _not_a_mapping(settings_cls, location)
    message = plain_message(details)
    if kind == "int_parsing" and str(location[-1]).endswith("_bytes"):
        message = "is a number of bytes, e.g. 10000000"
    return f"{message}, got {given!r}" if shown else message


def is_hidden(location: tuple[int | str, ...]) -> bool:
    """Whether the value of a field may be a secret, or hold one."""
    return any(location[: len(hidden)] == hidden for hidden in _HIDDEN)


def _not_a_mapping(settings_cls: type[LayeredSettings], location: tuple[int | str, ...]) -> str:
    if location[:1] == ("destinations",):
        return (
            'is not an address; give a text such as "http://10.0.0.1:8080" or an object with "url"'
        )
    if location in HEADER_FIELDS:
        return (
            'is not a JSON object such as {"X-Name": "value"}; write one, or a variable for each'
            f" header: {variable(settings_cls, location)}__X_NAME"
        )
    names = [name for name, _ in fields_at(settings_cls, location)]
    example = names[0].upper() if names else "NAME"
    return (
        f"has parts: set them one by one, e.g. {variable(settings_cls, location)}__{example},"
        " or all as a JSON object"
    )
