"""What the tests of the face share: those of what this FastAPI does not have are left out."""

import inspect

from fastapi import APIRouter

collect_ignore: list[str] = []
if "max_body_size" not in inspect.signature(APIRouter).parameters:
    # It came after the lowest version that is supported.
    collect_ignore.append("test_body_limits.py")
