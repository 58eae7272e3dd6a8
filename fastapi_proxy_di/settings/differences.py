"""Compares two settings of one upstream, or of one app, field by field.

No secret value appears in a difference: it says that the field has changed, not how.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, SecretStr

from fastapi_proxy_di.settings.destination import DestinationSettings
from fastapi_proxy_di.settings.faults import is_hidden
from fastapi_proxy_di.settings.fields import standard_class
from fastapi_proxy_di.settings.layered import LayeredSettings

__all__ = ["Difference", "differences"]

_Path = tuple[str, ...]


class Difference(NamedTuple):
    """A field with two values.

    Attributes:
        field: The field as in code, e.g. ``timeouts.connect``; of a header also its name; of a
            destination that stays also its address: ``destinations.http://10.0.0.1:8080.weight``.
        before: The old value as text; ``None`` if it may be a secret, or if there was none.
        after: The new value, likewise.
    """

    field: str
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        if self.before is None and self.after is None:
            return f"{self.field}: changed"
        if self.before is None:
            return f"{self.field}: + {self.after}"
        if self.after is None:
            return f"{self.field}: - {self.before}"
        return f"{self.field}: {self.before} -> {self.after}"


def differences(before: LayeredSettings, after: LayeredSettings) -> tuple[Difference, ...]:
    """Give the fields whose values differ, in the order of the settings.

    A policy that is given as an object is compared by its class, because each reading of a
    declared class copies the object.

    Args:
        before: The old settings.
        after: The new settings, of the same upstream or app.
    """
    found: list[Difference] = []
    for name in dict.fromkeys((*type(before).model_fields, *type(after).model_fields)):
        old: Any = getattr(before, name, None)
        new: Any = getattr(after, name, None)
        hidden = name not in standard_class(type(after)).model_fields  # a field of the user's own
        if name == "destinations":
            found += _destinations(old, new)
        elif name == "policy":
            if _policy(old) != _policy(new):
                found.append(Difference(name, _policy(old), _policy(new)))
        else:
            found += _compared((name,), old, new, hidden=hidden)
    return tuple(found)


def _compared(path: _Path, old: Any, new: Any, *, hidden: bool) -> Iterator[Difference]:
    if old == new:
        return
    hidden = hidden or is_hidden(path)
    if isinstance(old, BaseModel) and type(old) is type(new):
        for name in type(old).model_fields:
            yield from _compared(
                (*path, name), getattr(old, name), getattr(new, name), hidden=hidden
            )
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from _compared((*path, name), old.get(name), new.get(name), hidden=hidden)
    elif hidden or isinstance(old, BaseModel | SecretStr) or isinstance(new, BaseModel | SecretStr):
        yield Difference(".".join(path))
    else:
        yield Difference(".".join(path), _text(old), _text(new))


def _destinations(
    old: tuple[DestinationSettings, ...], new: tuple[DestinationSettings, ...]
) -> Iterator[Difference]:
    # Of a source of destinations without its query, which may hold a secret.
    before, after = {_address(one): one for one in old}, {_address(one): one for one in new}
    yield from [Difference("destinations", before=url) for url in before if url not in after]
    yield from [Difference("destinations", after=url) for url in after if url not in before]
    stay = [url for url in before if url in after]
    if stay != [url for url in after if url in before]:
        yield Difference("destinations", ", ".join(before), ", ".join(after))
    for url in stay:
        for name in DestinationSettings.model_fields:
            first, second = getattr(before[url], name), getattr(after[url], name)
            if name in ("metadata", "url"):
                path = ("destinations", url, name)
                yield from _compared(path, first, second, hidden=True)
            elif first != second:
                yield Difference(f"destinations.{url}.{name}", _text(first), _text(second))


def _address(one: DestinationSettings) -> str:
    return one.url if one.source is None else one.source.shown


def _policy(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _text(value: object) -> str:
    if isinstance(value, frozenset | tuple | list):
        return ", ".join(sorted(map(str, value))) or "none"
    return "none" if value is None else str(value)
