"""The type of an app's mention of an upstream: a name, a settings class, or an instance."""

import re
from functools import cache

from pydantic import create_model

from fastapi_proxy_di.settings.upstream import UpstreamSettings

__all__ = ["Mention", "settings_class"]

Mention = str | type[UpstreamSettings] | UpstreamSettings
"""An upstream's name, a declared class, or an instance."""


@cache
def settings_class(name: str) -> type[UpstreamSettings]:
    """Give the class of an upstream that is mentioned by name; the same class each time.

    Args:
        name: ``[a-z][a-z0-9_-]*``.

    Raises:
        SettingsError: ``name`` is not a name of an upstream.
    """
    title = "".join(part.capitalize() for part in re.split("[-_]", name))
    return create_model(
        f"{title}Settings", __base__=UpstreamSettings, __cls_kwargs__={"name": name}
    )
