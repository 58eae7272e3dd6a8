"""The tests here need SDKs; where one is missing they are not collected.

``scripts/sdks.py`` makes an environment with all of them and runs the tests there.
"""

from importlib.util import find_spec

from tests.docs.conftest import gateway, snippet

__all__ = ["gateway", "snippet"]


def _is_missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # its parent is missing
        return True


NEEDS = ("anthropic", "google.genai", "mcp", "openai", "pydantic_ai")
TESTS = ("test_sdks.py", "test_mcp_sessions.py", "test_usage.py")
collect_ignore = [*TESTS] if any(map(_is_missing, NEEDS)) else []
