"""The tests here need gunicorn and the command ``fastapi``; without them they are not collected.

``scripts/servers.py`` makes an environment with all servers and runs the tests there.
"""

from importlib.util import find_spec

NEEDS = ("fastapi_cli", "granian", "gunicorn", "hypercorn", "uvicorn_worker")
collect_ignore_glob = ["test_*.py"] if any(find_spec(name) is None for name in NEEDS) else []
