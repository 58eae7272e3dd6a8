"""uvicorn's older ``websockets`` implementation, which warns on import: in its own process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_FILES = [
    "test_handshake_up.py",
    "test_handshake_down.py",
    "test_unreachable.py",
    "test_traffic.py",
    "test_endings.py",
    "test_keepalive.py",
    "test_shutdown.py",
    "test_balancing.py",
    "test_forward_websocket.py",
    "test_real_peers.py",
    "test_socketio.py",
    "test_browser.py",
]


@pytest.mark.timeout(240)
async def test_tunnels_work_under_the_deprecated_implementation() -> None:
    """The tests beside this one pass under it as well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--no-showlocals", "-p", "no:cacheprovider"),
        *("-W", "ignore::DeprecationWarning", "-W", "ignore:The `websockets` implementation is"),
        *(str(_HERE / name) for name in _FILES),
        cwd=_HERE.parents[1],
        env={**os.environ, "GATEWAY_WEBSOCKETS": "websockets"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
