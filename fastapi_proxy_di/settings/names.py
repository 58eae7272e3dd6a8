"""Names of upstreams, and the prefix that their variables have."""

import re
from typing import Final

from fastapi_proxy_di.errors import SettingsError

__all__ = ["check_name", "prefix_of"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")


def check_name(name: str) -> str:
    """Give the name back if it may be an upstream's.

    Raises:
        SettingsError: ``name`` does not match ``[a-z][a-z0-9_-]*``.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} is not a name of an upstream; use lower-case letters, digits,"
            " '-' and '_', and start with a letter"
        )
    return name


def prefix_of(name: str) -> str:
    """Give the prefix of an upstream's variables, e.g. ``UPSTREAM_BILLING_``."""
    return f"UPSTREAM_{name.upper().replace('-', '_')}_"
