"""Write the tables of ``docs/reference/settings.md`` from the settings' descriptions.

    python -m scripts.settings_reference

The tables are committed, so that they can be read without building the site; a test fails
when they are not what this script writes.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr, WithJsonSchema

from fastapi_proxy_di import DestinationSettings, ProxySettings, UpstreamSettings
from fastapi_proxy_di.settings.statuses import StatusCodes
from scripts.reference_tables import table, with_tables

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
PREFIX: Final = "UPSTREAM_BILLING_"
APP_PREFIX: Final = "FASTAPI_PROXY_"
NAMES: Final[dict[Any, str]] = {
    bool: "`true` or `false`",
    dict: "JSON object",
    float: "number",
    int: "integer",
    str: "text",
    IPv4Network: "network",
    IPv6Network: "network",
    Path: "file",
    SecretStr: "secret text",
    StatusCodes: "list of statuses",
    DestinationSettings: "destination",
}
LISTS: Final = {"destination": "destinations", "network": "networks", "text": "texts"}


def readable(value: object) -> str:
    """Write a default as people do: ``none``, ``true``, ``15``, ``200-399``, ``GET,HEAD``."""
    if value is None or value in ((), {}, frozenset()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, frozenset):
        items = sorted(value)
        if items[-1] == items[0] + len(items) - 1 if isinstance(items[0], int) else False:
            return f"{items[0]}-{items[-1]}"
        return ",".join(map(str, items))
    return str(value)


def models(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Give the nested models of a settings model by field name, optional ones too."""
    for name, field in model.model_fields.items():
        choices = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for choice in choices:
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                yield name, choice


def type_name(annotation: object, metadata: Sequence[object] = ()) -> str:
    """Name the type of a setting as people write its values: ``duration``, ``list of texts``.

    Args:
        annotation: Annotation of the field, or a part of it.
        metadata: What pydantic took out of an ``Annotated`` around it: bounds, validators.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0], arguments[1:])
    if origin is Literal:
        *first, last = (f"`{value}`" for value in arguments)
        return f"{', '.join(first)} or {last}"
    if origin in (Union, UnionType):
        names = ["none" if one is NoneType else type_name(one, metadata) for one in arguments]
        return " or ".join(dict.fromkeys(names))
    if origin in (tuple, frozenset):
        return f"list of {LISTS.get(type_name(arguments[0]), 'objects')}"
    if annotation is float and any(isinstance(one, WithJsonSchema) for one in metadata):
        return "duration"
    if origin is dict and arguments[1] is SecretStr:
        return "JSON object with secret values"
    bounds = [
        f"{sign} {getattr(one, at)}"
        for one in metadata
        for kind, at, sign in ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"))
        if isinstance(one, kind)
    ]
    name = NAMES.get(origin or annotation, "object")
    return f"{name} {' and '.join(bounds)}" if bounds else name


def settings_table(
    model: type[BaseModel],
    place: str = "",
    prefix: str | None = None,
    skip: frozenset[str] = frozenset(),
) -> str:
    """Give one row for each field: name with anchor and variable, type, default, description.

    Args:
        model: The settings whose fields are shown.
        place: Name of the model in its parent and a dot, for the anchors: ``health.``.
        prefix: What the names of the variables begin with; none without variables.
        skip: Fields that have a section of their own.
    """
    rows: list[tuple[str, str, str, str]] = []
    for name, field in model.model_fields.items():
        if name not in skip:
            anchor = place + name
            setting = f"[`{name}`](#{anchor}){{ #{anchor} }}"
            if prefix is not None:
                setting += f"<br>`{prefix}{name.upper()}`"
            kind = type_name(field.annotation, field.metadata)
            value = field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else f"`{readable(value)}`"
            meaning = re.sub(r"\s+", " ", field.description or "").replace("``", "`")
            meaning = meaning.replace("|", "\\|")
            rows.append((setting, kind, default, meaning))
    return table(("Setting", "Type", "Default", "Meaning"), rows)


def tables() -> str:
    """Give all tables: an upstream's own settings, nested ones, one destination's, the app's."""
    nested = dict(models(UpstreamSettings))
    parts = [
        "## The upstream\n\n"
        + settings_table(UpstreamSettings, prefix=PREFIX, skip=frozenset(nested))
    ]
    parts += [
        f"## `{name}`\n\n" + settings_table(model, f"{name}.", f"{PREFIX}{name.upper()}__")
        for name, model in nested.items()
    ]
    parts.append(
        "## A destination\n\nOne entry of `destinations`: in code a `DestinationSettings`, "
        "in a variable a JSON object.\n\n" + settings_table(DestinationSettings, "destinations.")
    )
    nested = dict(models(ProxySettings))
    parts.append(
        "## The app\n\nThe fields of `ProxySettings`, for all upstreams of an app.\n\n"
        + settings_table(ProxySettings, "app.", APP_PREFIX, frozenset(nested))
    )
    parts += [
        f"### `{name}` of the app\n\n"
        + settings_table(model, f"app.{name}.", f"{APP_PREFIX}{name.upper()}__")
        for name, model in nested.items()
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), tables()))
