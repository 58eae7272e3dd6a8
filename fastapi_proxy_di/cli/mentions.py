"""Reads what the command line names: upstreams, settings classes and apps to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter

from fastapi_proxy_di.cli.app_places import AppFindings, Place, is_app, read_app
from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import Mention, ProxySettings, UpstreamSettings

__all__ = ["Named", "named"]


@dataclass(slots=True)
class Named:
    """What the command line names.

    Attributes:
        mentions: The upstreams by name, each with its name, its class or its settings.
        places: Where the apps among the words use them.
        shadowed: Routes of these apps that get no requests.
        settings: The `ProxySettings` that code has given to one of these apps.
    """

    mentions: dict[str, Mention] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)
    settings: ProxySettings | None = None


def named(words: Iterable[str]) -> Named:
    """Read the words of the command line.

    Args:
        words: Names of upstreams, or references to settings classes or apps, like
            ``package.module:Billing`` and ``package.module:app``.

    Raises:
        SettingsError: A reference is neither, or an upstream is given twice.
    """
    found = Named()
    for word in words:
        if ":" not in word:
            _add(found, word, {word: word})
            continue
        target = _imported(word)
        if is_app(target):
            app = _read(word, target)
            _add(found, word, app.mentions)
            found.places += app.places
            found.shadowed += app.shadowed
            found.settings = app.settings or found.settings
        else:
            settings = _settings_class(word, target)
            _add(found, word, {settings.name: settings})
    return found


def _add(found: Named, word: str, mentions: Mapping[str, Mention]) -> None:
    for name, mention in mentions.items():
        if name in found.mentions:
            raise SettingsError(f"{word} is upstream {name!r}, which is given twice; leave one out")
        found.mentions[name] = mention


def _read(word: str, app: object) -> AppFindings:
    try:
        return read_app(app)
    except SettingsError as error:
        raise SettingsError(f"{word}: {error}") from error


def _imported(reference: str) -> object:
    module, _, name = reference.partition(":")
    try:
        found: object = attrgetter(name)(import_module(module))
    except Exception as error:  # the module is the user's and may raise anything
        raise SettingsError(
            f"{reference} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return found


def _settings_class(reference: str, found: object) -> type[UpstreamSettings]:
    if not (isinstance(found, type) and issubclass(found, UpstreamSettings) and found.name):
        raise SettingsError(
            f"{reference} is not a settings class of an upstream, nor an app; give the name of an"
            " upstream, an app such as package.module:app, or a class such as"
            " package.module:Billing that is declared as"
            ' class Billing(UpstreamSettings, name="billing")'
        )
    return found
