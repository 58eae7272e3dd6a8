"""Loading the settings of all upstreams of an app, with all their faults at once."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings.faults import describe_faults
from fastapi_proxy_di.settings.fields import env_prefix
from fastapi_proxy_di.settings.mention import Mention, settings_class
from fastapi_proxy_di.settings.names import prefix_of
from fastapi_proxy_di.settings.proxy import ProxySettings
from fastapi_proxy_di.settings.similar import similar_name
from fastapi_proxy_di.settings.unknown_variables import unknown_variables
from fastapi_proxy_di.settings.upstream import UpstreamSettings

__all__ = ["load_all", "load_upstream", "read_all", "read_proxy_settings", "settings_error"]

_DESTINATIONS: Final = re.compile(r"UPSTREAM_([^\W_]\w*?)_DESTINATIONS")
_LIKE_DESTINATIONS: Final = re.compile(r"(?:UPSTREAMS?_+)?([^\W_]\w*?)_+DESTINATIONS?")
"""Also without the prefix, in the plural, or with too many underscores."""


def load_all(
    mentions: Mapping[str, Mention],
) -> dict[str, UpstreamSettings]:
    """Validate the settings of all upstreams of an app.

    Args:
        mentions: By name: the name again, a declared class, or an instance, which is not
            validated again.

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
    """Validate the settings of all upstreams and collect their faults.

    Returns:
        The settings that are valid, by name; and the faults of the others, one a line.
    """
    faults: list[str] = []
    loaded: dict[str, UpstreamSettings] = {}
    prefixes: dict[str, tuple[str, type]] = {}
    for name, mention in mentions.items():
        try:
            found = settings_class(mention) if isinstance(mention, str) else mention
            if found.name != name:
                raise SettingsError(f"is given settings that are named {found.name!r}")
            settings_cls = found if isinstance(found, type) else type(found)
            prefix = env_prefix(settings_cls)
            # One class may be the settings of several upstreams, by `UpstreamSettings.named`.
            other, other_cls = prefixes.setdefault(prefix, (name, settings_cls))
            if other_cls is not settings_cls:
                raise SettingsError(
                    f"has the same variables ({prefix}*) as upstream {other!r}; rename one"
                )
            loaded[name] = settings_cls() if isinstance(found, type) else found
            if loaded[name].strict_environment:
                faults += unknown_variables(settings_cls, os.environ, mentions)
        except ValidationError as error:
            faults += describe_faults(error, settings_cls)
            faults += _hints(error, settings_cls, mentions)
        except SettingsError as error:
            # An address in place of a name may hold a password.
            subject = "upstream" if "://" in name else f"upstream {name!r}"
            faults.append(f"{subject}: {error}")
    return loaded, faults


def read_proxy_settings() -> tuple[ProxySettings | None, list[str]]:
    """Read the settings of the app and collect their faults.

    Returns:
        The settings, ``None`` if they are not valid; and the faults, one a line.
    """
    try:
        return ProxySettings(), []
    except ValidationError as error:
        return None, describe_faults(error, ProxySettings)


def settings_error(faults: Iterable[str]) -> SettingsError:
    """Put faults into one error."""
    return SettingsError("\n".join(("Settings are not valid:", *(f"- {f}" for f in faults))))


def load_upstream(name: str) -> UpstreamSettings:
    """Read the settings of an upstream that is mentioned by name.

    Raises:
        SettingsError: ``name`` is not a name, or the settings have faults; all are listed.
    """
    return load_all({name: name})[name]


def _hints(
    error: ValidationError, settings_cls: type[UpstreamSettings], names: Iterable[str]
) -> Iterator[str]:
    """Name variables that are set and were perhaps meant to set the faulty fields."""
    prefix = env_prefix(settings_cls)
    yield from unknown_variables(settings_cls, os.environ, names)
    if any(one["type"] == "missing" and one["loc"] == ("destinations",) for one in error.errors()):
        for variable_name, value in os.environ.items():
            like = _LIKE_DESTINATIONS.fullmatch(variable_name.upper())
            if like and value and prefix_of(like[1]) == prefix:
                # `unknown_variables` has named the variables that begin with the prefix.
                if not variable_name.upper().startswith(prefix):
                    yield f"{variable_name} is set; did you mean {prefix}DESTINATIONS?"
        mentioned = {prefix, *map(prefix_of, names)}
        set_variables = {
            match[1].lower(): match[0]
            for variable_name, value in os.environ.items()
            if value and (match := _DESTINATIONS.fullmatch(variable_name.upper()))
            if prefix_of(match[1]) not in mentioned
        }
        similar = similar_name(settings_cls.name.replace("-", "_"), set_variables)
        if similar:
            yield (
                f"{set_variables[similar]} is set; did you mean upstream {similar!r} "
                f"instead of {settings_cls.name!r}?"
            )
