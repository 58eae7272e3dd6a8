"""Write the tables of ``docs/reference/settings.md`` from the settings' descriptions.

    python scripts/settings_reference.py

The tables are committed, so that they can be read without building the site; a test fails
when they are not what this script writes.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from fastapi_proxy_di import DestinationSettings, UpstreamSettings

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


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


def table(model: type[BaseModel], skip: frozenset[str] = frozenset()) -> str:
    """Give one row for each field: name, default, description."""
    rows = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        if name not in skip:
            value = field.get_default(call_default_factory=True)
            default = "required" if field.is_required() else f"`{readable(value)}`"
            meaning = re.sub(r"\s+", " ", field.description or "").replace("``", "`")
            rows.append(f"| `{name}` | {default} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def heading(name: str) -> str:
    """Give a section's heading and its example of a variable's prefix."""
    return f"## `{name}`\n\nVariables: `UPSTREAM_BILLING_{name.upper()}__…`\n\n"


def tables() -> str:
    """Give all tables: the upstream's own settings, nested ones, one destination's."""
    nested = dict(models(UpstreamSettings))
    parts = [
        "## The upstream\n\nVariables: `UPSTREAM_BILLING_…`\n\n"
        + table(UpstreamSettings, frozenset(nested))
    ]
    parts += [heading(name) + table(model) for name, model in nested.items()]
    parts.append(
        "## A destination\n\nOne entry of `destinations`.\n\n" + table(DestinationSettings)
    )
    return "\n\n".join(parts)


def page(text: str) -> str:
    """Give the page with its tables replaced.

    Args:
        text: The page as it is.
    """
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{tables()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
