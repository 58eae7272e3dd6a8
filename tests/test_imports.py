"""Importing the package loads no extra and no library that only commands need."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


# What Starlette, pydantic or an installed plugin may load by themselves is not counted.
_NEW = """
import fastapi, httpx, pydantic_settings, json, sys
before = set(sys.modules)
{statement}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize(
    "statement", ["from fastapi_proxy_di import *", "import fastapi_proxy_di.testing"]
)
def test_import_loads_no_extra(statement: str) -> None:
    """Neither the commands nor the libraries of extras, which may not be installed."""
    done = subprocess.run(
        [sys.executable, "-c", _NEW.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    new = json.loads(done.stdout)

    libraries = {name.partition(".")[0] for name in new}
    assert not libraries & {"dns", "h2", "httpx2", "pytest", "rich", "uvicorn", "uvloop", "yaml"}
    assert not libraries & {
        "opentelemetry",
        "prometheus_client",
    }  # FastAPI loads the first one's API
    assert not [name for name in new if name.startswith("fastapi_proxy_di.cli.")]
    assert "fastapi_proxy_di.integration.router" in new
