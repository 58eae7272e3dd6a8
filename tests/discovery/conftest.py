"""Fixtures of the tests of discovery."""

from __future__ import annotations

import pytest

from fastapi_proxy_di.discovery.names import Names


@pytest.fixture(autouse=True)
def _no_files_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let look-ups read empty files: no search list, no ``ndots`` and no hosts of the machine."""
    files = {"resolv_conf": "/dev/null", "hosts": "/dev/null"}
    monkeypatch.setattr(Names.__init__, "__kwdefaults__", files)
    monkeypatch.setattr("socket.gethostname", lambda: "gate")
