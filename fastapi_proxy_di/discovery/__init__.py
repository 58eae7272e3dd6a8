"""Where destinations come from, other than addresses in the settings."""
