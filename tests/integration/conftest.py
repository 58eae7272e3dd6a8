"""Leaves out the tests of features that the installed FastAPI does not have."""

import inspect

from fastapi import APIRouter

collect_ignore: list[str] = []
if "max_body_size" not in inspect.signature(APIRouter).parameters:
    # It came after the lowest version that is supported.
    collect_ignore.append("test_body_limits.py")
