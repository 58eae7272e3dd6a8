"""The tests here need fastapi-reverse-proxy; without it they are not collected.

``scripts/reverse_proxy_versions.py`` makes an environment for each version and runs the tests.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("fastapi_reverse_proxy") else ["test_originals.py"]
