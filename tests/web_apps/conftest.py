"""The tests here need web apps; where one is missing they are not collected.

``scripts/web_apps.py`` makes an environment with all of them and runs the tests there.
"""

from importlib.util import find_spec

NEEDS = ("django", "flask", "gradio", "gunicorn", "jupyterlab", "streamlit", "whitenoise")
collect_ignore_glob = ["test_*.py"] if any(find_spec(name) is None for name in NEEDS) else []
