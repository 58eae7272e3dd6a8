"""``schema``: the JSON Schema of an upstream's settings, for editors and for CI."""

from __future__ import annotations

import json
import sys

from fastapi_proxy_di.settings import settings_class


def run(name: str) -> int:
    """Print the schema.

    Args:
        name: Name of the upstream; changes only the title.

    Returns:
        0.
    """
    json.dump(settings_class(name).model_json_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0
