"""Web apps below a prefix; `scripts/web_apps.py` installs them and runs these tests."""
