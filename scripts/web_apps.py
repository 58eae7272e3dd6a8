"""Run the recipes of the how-to "Put a web app under a prefix", in an environment of their own.

    python scripts/web_apps.py

Each test of ``tests/web_apps`` starts an app and a gateway with the files that the how-to shows
(``docs/src/how_to/web_apps``). Some need Chromium. Before that, the types of the apps are checked.
"""

import sys

from own_environment import run_tests

PACKAGES = [
    "django",
    "django-stubs",  # Django's own code has no types
    "flask",
    "gradio",
    "gunicorn",
    "jupyterlab",
    "streamlit",
    "whitenoise",
]

SNIPPETS = [
    f"docs/src/how_to/web_apps/{name}.py"
    for name in ("flask_app", "gradio_app", "shop/urls", "streamlit_app")
]

if __name__ == "__main__":
    sys.exit(run_tests("Web apps", PACKAGES, "tests/web_apps", SNIPPETS))
