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
    if _NAME.fullmatch(name):
        return name
    if "://" in name:
        # The address may hold a password.
        raise SettingsError(
            "an address is not a name of an upstream; give a name such as billing, and the address"
            " as UPSTREAM_BILLING_DESTINATIONS"
        )
    meant = name.strip().lower().replace(" ", "-").removeprefix("upstream_")
    hint = f"did you mean {meant!r}? Use" if _NAME.fullmatch(meant) else "use"
    raise SettingsError(
        f"{name!r} is not a name of an upstream; {hint} lower-case letters, digits,"
        " '-' and '_', and start with a letter"
    )


def prefix_of(name: str) -> str:
    """Give the prefix of an upstream's variables, e.g. ``UPSTREAM_BILLING_``."""
    return f"UPSTREAM_{name.upper().replace('-', '_')}_"
