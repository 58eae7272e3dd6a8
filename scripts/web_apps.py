"""Run the recipes of the how-to "Put a web app under a prefix", in an environment of their own.

    python scripts/web_apps.py

Each test of ``tests/web_apps`` starts an app and a gateway with the files that the how-to shows
(``docs/src/how_to/web_apps``). Some need Chromium.
"""

import sys

from own_environment import run_tests

PACKAGES = ["django", "flask", "gradio", "gunicorn", "jupyterlab", "streamlit", "whitenoise"]

if __name__ == "__main__":
    sys.exit(run_tests("Web apps", PACKAGES, "tests/web_apps"))
