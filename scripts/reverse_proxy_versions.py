"""Run the tests of ``tests/migration`` with each version of fastapi-reverse-proxy.

    python scripts/reverse_proxy_versions.py

The page ``docs/migration.md`` describes these versions; each gets an environment of its own.
"""

import sys

from own_environment import run_tests

VERSIONS = ["0.1.1", "0.4.0"]

if __name__ == "__main__":
    packages = [f"fastapi-reverse-proxy=={version}" for version in VERSIONS]
    sys.exit(max(run_tests("Migration", [package], "tests/migration") for package in packages))
