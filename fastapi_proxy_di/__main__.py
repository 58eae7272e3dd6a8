"""``python -m fastapi_proxy_di``: the same commands as the console script."""

from __future__ import annotations

import sys

from fastapi_proxy_di.cli import main

if __name__ == "__main__":
    sys.exit(main())
