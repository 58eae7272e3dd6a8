"""Run the tests of ``tests/monitoring`` with each monitoring tool, in an environment of its own.

The tools patch FastAPI and Starlette when they are imported, so no two share one. Each
environment sees the packages of the one that runs this script, and has the tool besides::

    python scripts/monitoring_tools.py                     all
    python scripts/monitoring_tools.py sentry aikido_zen   these
"""

import sys

from own_environment import run_tests

TOOLS = {
    "opentelemetry": ["opentelemetry-instrumentation-fastapi", "opentelemetry-sdk"],
    "native_telemetry": ["opentelemetry-sdk"],
    "sentry": ["sentry-sdk"],
    "instrumentator": ["prometheus-fastapi-instrumentator"],
    "aikido_zen": ["aikido_zen"],
}
"""Each tool's tests are ``tests/monitoring/test_<name>.py``; what to install for them."""


def main(names: list[str]) -> int:
    """Run them; give how many tools failed.

    Args:
        names: Of tools; none for all.
    """
    failed = 0
    for name in names or TOOLS:
        failed += run_tests(name, TOOLS[name], f"tests/monitoring/test_{name}.py") != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
