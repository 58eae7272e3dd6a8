"""Importing the package costs little more than fastapi and httpx, and loads no engine."""

import json
import subprocess
import sys

from tests.benchmarks.imports import import_milliseconds

_NEW = """
import fastapi, httpx, json, sys
before = set(sys.modules)
from fastapi_proxy_di import *
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_import_costs_little_over_fastapi_and_httpx() -> None:
    """All public names; measured 1.14, and the bound leaves room for a busy machine."""
    times = import_milliseconds(5)

    assert times["package"] / times["base"] < 1.3


def test_import_loads_nothing_that_only_a_running_app_needs() -> None:
    """Neither engine nor commands, nor what they stand on; starting loads the former."""
    done = subprocess.run(
        [sys.executable, "-c", _NEW], capture_output=True, text=True, check=True, timeout=60
    )
    new = json.loads(done.stdout)

    late = ("upstream.composition", "cli", "forwarding.http", "supervision.supervisor", "testing")
    assert not {f"fastapi_proxy_di.{name}" for name in late} & set(new)
    libraries = {name.partition(".")[0] for name in new}
    assert not libraries & {
        "h2",
        "httptools",
        "rich",
        "url_normalize",
        "uvicorn",
        "uvloop",
        "websockets",
        "yaml",
    }
    assert {"fastapi_proxy_di.upstream.balancer", "fastapi_proxy_di.integration.router"} <= set(new)
