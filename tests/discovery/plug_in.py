"""Installs a plug-in with a real entry point, in a folder of a test."""

from __future__ import annotations

import importlib
from pathlib import Path
from uuid import uuid4

import pytest

__all__ = ["installed"]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, **entry_points: str) -> str:
    """Put a module and the metadata of its distribution on ``sys.path``.

    Args:
        folder: Where to put them.
        monkeypatch: Takes them back.
        code: Of the module.
        **entry_points: The function of each scheme.

    Returns:
        The name of the module, which no other test has.
    """
    module = f"plug_in_{uuid4().hex}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    lines = [f"{scheme} = {module}:{function}" for scheme, function in entry_points.items()]
    (metadata / "entry_points.txt").write_text(
        "\n".join(["[fastapi_proxy_di.discovery]", *lines, ""])
    )
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return module
