"""Finds the modules of the ``[cli]`` extra that are not installed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable


def missing_modules(names: Iterable[str]) -> list[str]:
    """Give the modules among ``names`` that cannot be imported, in order."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    return missing
