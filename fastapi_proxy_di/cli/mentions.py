"""Reads what the command line names: upstreams, or declared settings classes to import."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from operator import attrgetter

from fastapi_proxy_di.errors import SettingsError
from fastapi_proxy_di.settings import Mention, UpstreamSettings


def mentions_of(words: Iterable[str]) -> dict[str, Mention]:
    """Give the upstreams by name, each with its name or its class.

    Args:
        words: Names of upstreams, or references like ``package.module:Billing``.

    Raises:
        SettingsError: A reference is not a settings class, or an upstream is given twice.
    """
    found: dict[str, Mention] = {}
    for word in words:
        mention = _settings_class(word) if ":" in word else word
        name = mention if isinstance(mention, str) else mention.name
        if name in found:
            raise SettingsError(f"{word} is upstream {name!r}, which is given twice; leave one out")
        found[name] = mention
    return found


def _settings_class(reference: str) -> type[UpstreamSettings]:
    module, _, name = reference.partition(":")
    try:
        found: object = attrgetter(name)(import_module(module))
    except Exception as error:  # the module is the user's and may raise anything
        raise SettingsError(
            f"{reference} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, UpstreamSettings) and found.name):
        raise SettingsError(
            f"{reference} is not a settings class of an upstream; give the name of an upstream, or"
            " a class such as package.module:Billing that is declared as"
            ' class Billing(UpstreamSettings, name="billing")'
        )
    return found
