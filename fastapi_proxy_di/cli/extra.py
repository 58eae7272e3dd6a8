"""Which modules of the ``[cli]`` extra are not installed. Imports none of the library."""

from __future__ import annotations

import importlib
from collections.abc import Iterable


def missing_modules(names: Iterable[str]) -> list[str]:
    """The modules among ``names`` that cannot be imported, in order."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    return missing
