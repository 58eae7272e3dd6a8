"""Servers, stopped and reloaded; `scripts/servers.py` installs them and runs these tests."""
