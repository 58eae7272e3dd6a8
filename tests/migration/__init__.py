"""What the migration page says of the original; `scripts/reverse_proxy_versions.py` runs it."""
