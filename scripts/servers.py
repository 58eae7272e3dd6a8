"""Run the tests of ``tests/servers`` with each server, in an environment of their own.

    python scripts/servers.py

The tests stop and reload each server while streams are open, as the how-to "Choose a server" says.
"""

import sys

from own_environment import run_tests

PACKAGES = ["fastapi[standard]", "granian[reload]", "gunicorn", "hypercorn", "uvicorn-worker"]

if __name__ == "__main__":
    sys.exit(run_tests("Servers", PACKAGES, "tests/servers"))
