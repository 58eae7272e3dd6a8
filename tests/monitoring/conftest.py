"""Each file here needs one tool; without the tool its tests are not collected.

``scripts/monitoring_tools.py`` makes an environment for each tool and runs its file there.
"""

from importlib.util import find_spec

NEEDS = {
    "test_opentelemetry.py": "opentelemetry.instrumentation.fastapi",
    "test_native_telemetry.py": "opentelemetry.sdk",
    "test_sentry.py": "sentry_sdk",
    "test_instrumentator.py": "prometheus_fastapi_instrumentator",
    "test_aikido_zen.py": "aikido_zen",
}


def _is_missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # its parent is missing
        return True


collect_ignore = [file for file, module in NEEDS.items() if _is_missing(module)]
