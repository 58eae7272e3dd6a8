"""Run the tests of ``tests/sdks`` with the newest SDKs, in an environment of their own.

    python scripts/sdks.py

The SDKs send their requests by ``Balancer.httpx2_client``, to upstreams that run in the tests.
"""

import sys

from own_environment import run_tests

PACKAGES = [
    "anthropic",
    "google-genai",
    "mcp",
    "openai",
    "pydantic-ai-slim[anthropic,google,openai]",
]

if __name__ == "__main__":
    sys.exit(run_tests("SDKs", PACKAGES, "tests/sdks"))
