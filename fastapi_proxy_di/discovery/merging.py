"""Merges the destinations of the settings and of the sources into one list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi_proxy_di.settings import DestinationSettings

__all__ = ["Merged", "configured", "from_template", "merge"]

_LARGEST_WEIGHT: Final = 65535.0
_BY_NAME: Final = ("dns", "srv")
"""Prefixes of the sources whose destinations have the name of a record as their ``host``."""


class Merged(NamedTuple):
    """The destinations of an upstream.

    Attributes:
        destinations: All, in the order of the settings; each address once.
        found_by: The source of each address that was found, by address: the ``url`` of the source.
        doubles: Pairs of a source and what else has one of its addresses: another source, or
            the address itself where the settings give it; each pair once.
    """

    destinations: tuple[DestinationSettings, ...]
    found_by: dict[str, str]
    doubles: tuple[tuple[str, str], ...]


def merge(
    entries: Iterable[DestinationSettings], found: Mapping[str, Sequence[DestinationSettings]]
) -> Merged:
    """Put what sources found in their place among the destinations of the settings.

    Of two destinations with one address the first one is taken.

    Args:
        entries: The ``destinations`` of the settings, sources included.
        found: The list in use of each source, by its ``url``, with its template applied.
    """
    destinations: dict[str, DestinationSettings] = {}
    found_by: dict[str, str] = {}
    doubles: dict[tuple[str, str], None] = {}
    for entry in entries:
        for one in found.get(entry.url, ()) if entry.source is not None else (entry,):
            if one.url in destinations:
                doubles[entry.url, found_by.get(one.url, one.url)] = None
                continue
            destinations[one.url] = one
            if entry.source is not None:
                found_by[one.url] = entry.url
    return Merged(tuple(destinations.values()), found_by, tuple(doubles))


def from_template(template: DestinationSettings, found: DestinationSettings) -> DestinationSettings:
    """Give a found destination the fields of its source that it does not have itself.

    Weights are multiplied, tiers added and metadata joined. The ``host`` of a destination found by
    DNS is the name that was looked up, so that of the source is taken instead.
    """
    if not template.model_fields_set - {"url"}:
        return found
    own = {name: getattr(found, name) for name in found.model_fields_set}
    if template.host and template.source is not None and template.source.prefix in _BY_NAME:
        own["host"] = template.host
    return DestinationSettings.model_validate(
        {
            **{name: getattr(template, name) for name in template.model_fields_set},
            **own,
            "weight": min(template.weight * found.weight, _LARGEST_WEIGHT),
            "tier": template.tier + found.tier,
            "metadata": {**template.metadata, **found.metadata},
        }
    )


def configured(settings: DestinationSettings, changes: Mapping[str, Any]) -> DestinationSettings:
    """Give ``settings`` with other values of some fields.

    Raises:
        ValueError: A value is not valid.
    """
    # Not `dict(settings)`, which also contains cached properties.
    fields = {name: getattr(settings, name) for name in settings.model_fields_set}
    return DestinationSettings.model_validate({**fields, **changes})
