"""Makes apps importable for the tests of in-process apps."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType

import pytest
from starlette.types import ASGIApp

from tests.transport.asgi.apps import Inner

_numbers = itertools.count()


@pytest.fixture
def inner(monkeypatch: pytest.MonkeyPatch) -> Inner:
    """Make an app importable and give its address."""

    def place(app: ASGIApp | object) -> str:
        name = f"inner_app_{next(_numbers)}"
        module = ModuleType(name)
        module.__dict__["app"] = app
        monkeypatch.setitem(sys.modules, name, module)
        return f"asgi://{name}:app"

    return place
