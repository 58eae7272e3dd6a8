"""SDKs on the clients of an upstream; `scripts/sdks.py` installs them and runs these tests."""
