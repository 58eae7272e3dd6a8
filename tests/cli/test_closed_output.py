"""A command whose output nobody reads any more ends quietly, as in ``schema | head -1``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastapi_proxy_di import cli

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("command", ["schema", "check"])
def test_command_ends_quietly_if_its_output_is_closed(command: str) -> None:
    """There is no traceback; the status is the one that a shell gives for SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "fastapi_proxy_di", command, "billing"],
            check=False,
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "UPSTREAM_BILLING_DESTINATIONS": "http://127.0.0.1:9"},
            timeout=60,
        )
    finally:
        os.close(writing)

    assert (ended.returncode, ended.stderr) == (141, b"")


def test_closed_output_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is left in the buffer goes nowhere, so the flush at exit raises nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as output:  # noqa: PTH123 - a descriptor, not a path
        monkeypatch.setattr(sys, "stdout", output)
        status = cli.main(["schema"])
        output.write("more")
        output.flush()

    assert status == 141
