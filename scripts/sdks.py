"""Run the tests of ``tests/sdks`` with the newest SDKs, in an environment of their own.

Before that, the types of the snippets that use the SDKs are checked.

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

SNIPPETS = [
    f"docs/src/how_to/{name}.py"
    for name in ("sdk", "sdk_anthropic", "sdk_google_genai", "sdk_mcp", "sdk_pydantic_ai")
]

if __name__ == "__main__":
    sys.exit(run_tests("SDKs", PACKAGES, "tests/sdks", SNIPPETS))
