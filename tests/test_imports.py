"""Importing the package costs little more than fastapi and httpx, and loads no engine."""

import json
import subprocess
import sys

from tests.benchmarks.imports import import_milliseconds

_LOADED = "import fastapi, httpx, sys; old = set(sys.modules); import fastapi_proxy_di, json; "
_NEW = _LOADED + "print(json.dumps(sorted(set(sys.modules) - old)))"


def test_import_costs_little_over_fastapi_and_httpx() -> None:
    """Measured 1.14; the bound leaves room for a machine that does other things as well."""
    times = import_milliseconds(5)

    assert times["package"] / times["base"] < 1.3


def test_import_loads_nothing_that_only_a_running_app_needs() -> None:
    """Neither engine nor commands, nor what they stand on; starting loads the former."""
    done = subprocess.run(
        [sys.executable, "-c", _NEW], capture_output=True, text=True, check=True, timeout=60
    )
    new = json.loads(done.stdout)

    late = ("assembly", "cli", "forwarding.http", "keeper", "probing", "runtime", "testing")
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
    assert {"fastapi_proxy_di.balancer", "fastapi_proxy_di.routing"} <= set(new)
